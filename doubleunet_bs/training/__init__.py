"""Stages, the training loop and negative mining (paper, sections 2.5, 2.6 and 3).

The public API, from shards to a trained fold, is in the example of `train_fold`. How a command reaches the gradient:
`commands.train` -> `run_training` (folds of a run) -> `stages` (trainings of a fold) -> `trainer` (epochs) -> `steps`.
How to add a loss, a network or an augmentation is in CONTRIBUTING.md.
"""

from doubleunet_bs.runs.create_run import create_run
from doubleunet_bs.runs.experiments import paper_experiment
from doubleunet_bs.tensorflow_setup import import_tensorflow

import_tensorflow()  # before any module below does it with all of its chatter

from doubleunet_bs.training.devices import open_devices  # noqa: E402
from doubleunet_bs.training.run_training import train_fold  # noqa: E402

__all__ = ["create_run", "open_devices", "paper_experiment", "train_fold"]
