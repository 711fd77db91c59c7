"""Experiments, stages, the training loop and negative mining (paper, sections 2.5, 2.6 and 3).

The public API, from shards to a trained fold, is in the example of `train_fold`. How a command reaches the gradient:
`commands.train` -> `run_training` (folds of a run) -> `stages` (trainings of a fold) -> `trainer` (epochs) -> `steps`.

To extend it:

- a loss: a subclass of `network.losses.OverlapLoss`, its name in `Experiment.loss` and in `steps.make_loss`;
- a network: a function with the arguments and outputs of `network.double_unet`, called in `training/build_network.py`;
- an augmentation: a variant in `dataset.augmentation.Augmentation`, switched by a setting of `Experiment`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from doubleunet_bs.training.create_run import create_run
from doubleunet_bs.training.experiments import Experiment, paper_experiment
from doubleunet_bs.training.run_folder import Run, open_run

if TYPE_CHECKING:
    from doubleunet_bs.training.devices import DeviceSettings, open_devices
    from doubleunet_bs.training.run_training import train_all_folds, train_fold

__all__ = [
    "DeviceSettings",
    "Experiment",
    "Run",
    "create_run",
    "open_devices",
    "open_run",
    "paper_experiment",
    "train_all_folds",
    "train_fold",
]
_NEED_TENSORFLOW = {
    "DeviceSettings": "devices",
    "open_devices": "devices",
    "train_all_folds": "run_training",
    "train_fold": "run_training",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: what reads a run needs no TensorFlow.
    if name not in _NEED_TENSORFLOW:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from doubleunet_bs.tensorflow_setup import import_tensorflow

    import_tensorflow()
    return getattr(importlib.import_module(f"{__name__}.{_NEED_TENSORFLOW[name]}"), name)
