"""Franka Kitchen: environment, experts, and the public data of others.

Names are those of the paper; D4RL and D5RL swap them:

  here      fourth target   D4RL               D5RL
  mixed     slide cabinet   kitchen-partial    indistribution
  complete  slide cabinet   kitchen-complete
  partial   bottom burner   kitchen-mixed      outofdistribution

beside microwave, kettle and light switch in all of them.

  tasks           objects, targets, and when they are in place
  env             the environment, and images from positions
  arm, expert     inverse kinematics, and the plans of the scripted experts
  demonstrations  which objects the experts bring in place
  table           numbers of a dataset beside those of the paper
  formats         the formats of public data; sources read the files, playback
                  renders and rewards them anew
  parity          comparison with the kitchen of D4RL
"""
