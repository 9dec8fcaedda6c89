"""Lambda returns of MOTO: in imagination (Eq. 5) and along real sequences."""

import tensorflow as tf


def value_expansion(
  reward: tf.Tensor, value: tf.Tensor, discount: tf.Tensor, lambda_: float
) -> tuple[tf.Tensor, tf.Tensor]:
  """V and V_hat of Eq. 5 by their recursion.

      V(s[t])     = r[t] + d[t] * V_hat(s[t+1])
      V_hat(s[t]) = (1 - lambda) * V_0(s[t]) + lambda * V(s[t])
      V_hat(s[H]) = V_0(s[H])

  Args:
    reward: [H, N], reward[t] received on arriving in s[t+1].
    value: V_0 [H+1, N], the smaller critic at (s[t], a[t]).
    discount: [H, N], discount[t] of what follows s[t+1].
    lambda_: lambda of Eq. 5.

  Returns:
    V_hat [H+1, N] and V [H, N].
  """
  v_hat, v = [value[-1]], []
  for t in reversed(range(reward.shape[0])):
    v.append(reward[t] + discount[t] * v_hat[-1])
    v_hat.append((1 - lambda_) * value[t] + lambda_ * v[-1])
  return tf.stack(v_hat[::-1]), tf.stack(v[::-1])


def real_returns(
  reward: tf.Tensor,
  value: tf.Tensor,
  discount: tf.Tensor,
  is_first: tf.Tensor,
  lambda_: float,
) -> tf.Tensor:
  """Lambda returns of the transitions of real sequences.

      record      s[0]    s[1]    s[2]    s[3]
      reward         r[1]    r[2]    r[3]
      return         R[0]    R[1]    R[2]       of s[i], action[i+1]

      R[i] = r[i+1] + d[i+1] * ((1 - lambda) * V_0(s[i+1]) + lambda * R[i+1])

  and with V_0(s[i+1]) alone where the window or the episode ends at s[i+1].

  Args:
    reward, value, discount, is_first: [B, T].

  Returns:
    [B, T - 1]; without meaning where is_first[i+1].
  """
  returns, length = [], reward.shape[1]
  for i in reversed(range(length - 1)):
    boot = value[:, i + 1]
    if i + 2 < length:
      goes_on = (1 - is_first[:, i + 2]) * lambda_
      boot += goes_on * (returns[-1] - boot)
    returns.append(reward[:, i + 1] + discount[:, i + 1] * boot)
  return tf.stack(returns[::-1], 1)
