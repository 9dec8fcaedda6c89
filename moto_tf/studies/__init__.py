"""Studies: what a trained agent's critics, rewards and penalty are worth.

A study is one file with `measure(context) -> StudyResult`, and one line in
STUDIES, the only list of them. `diagnose` runs them.

diagnose   runs studies, writes numbers and figures
context    what studies look at: agent, episodes, posterior states
returns    what the policy expects in its model
common     seeds and correlations
rank       many checkpoints by what they expect; the command of that name
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from moto_tf.errors import MotoError
from moto_tf.registry import Registry, RegistryError

if TYPE_CHECKING:
  from matplotlib.figure import Figure

# What a study may need, and why it is left out where that is not there. The
# agent comes first; the last ones never fail and say when things are made.
NEEDS = {
  'model': 'the agent has no world model',
  'ensemble': 'the ensemble has one member, which cannot disagree with itself',
  'critics': 'the agent has no critics that say what they predict',
  'recorded': 'there are no recorded episodes to look at',
  # Recorded episodes are looked at, too, if there are any.
  'recorded_if_any': '',
  # Successful ones, of which the study has to find whether there are any.
  'experts': '',
  # Episodes of the policy; such a study runs after those that need none.
  'rollouts': '',
}


class StudyError(MotoError, ValueError):
  """Something cannot be diagnosed; the message says what to do."""


class StudySkipped(StudyError):
  """A study does not fit the run; the message says why, the others go on."""


@dataclasses.dataclass(frozen=True)
class Study:
  """Entry of the registry.

  Attributes:
    run: 'module:function' or the function; it takes a studies.context.Context,
      returns a StudyResult, and may raise StudySkipped.
    label: what it shows, in one line.
    needs: names of NEEDS, in their order.
    figure: name of its figure without .png, '' for none.
  """

  run: str | Callable
  label: str
  needs: tuple[str, ...] = ()
  figure: str = ''

  def __post_init__(self):
    unknown = [need for need in self.needs if need not in NEEDS]
    if unknown:
      raise RegistryError(
        f'A study cannot need {unknown[0]!r}; it may need {", ".join(NEEDS)}.'
      )


@dataclasses.dataclass
class StudyResult:
  """What a study found.

  Attributes:
    numbers: for JSON, without nan or infinity.
    text: for the terminal.
    figures: by name of their file, without .png.
  """

  numbers: dict
  text: str = ''
  figures: dict[str, 'Figure'] = dataclasses.field(default_factory=dict)


STUDIES = Registry(
  'study',
  {
    'critics': Study(
      'moto_tf.studies.critics:measure',
      'values against the returns of real episodes',
      ('model', 'critics', 'rollouts'),
      'q_calibration',
    ),
    'reward': Study(
      'moto_tf.studies.reward:measure',
      "predicted against real rewards of the policy's and of recorded episodes",
      ('model', 'recorded_if_any', 'rollouts'),
      'reward',
    ),
    'penalty': Study(
      'moto_tf.studies.penalty:measure',
      'disagreement under actions on and off the data',
      ('model', 'ensemble', 'recorded'),
      'penalty',
    ),
    'composition': Study(
      'moto_tf.studies.composition:measure',
      'rewards beyond those of the data, in the model (Fig. 4 of the paper)',
      ('model', 'experts'),
      'composition',
    ),
    'bound': Study(
      'moto_tf.studies.bound:measure',
      "the experts' uncertainty against the gap in return (Fig. 6)",
      ('model', 'ensemble', 'experts', 'rollouts'),
      'bound',
    ),
    'training': Study(
      'moto_tf.studies.training:measure',
      'disagreement, penalty and success over training',
      (),
      'disagreement',
    ),
  },
)


def register_study(
  name: str,
  run: str | Callable,
  label: str,
  needs: tuple[str, ...] = (),
  figure: str = '',
) -> Study:
  """Adds a study of your own to those that `diagnose` runs; see Study.

  Raises:
    RegistryError: the name is taken, or a need is unknown.
  """
  return STUDIES.register(name, Study(run, label, tuple(needs), figure))
