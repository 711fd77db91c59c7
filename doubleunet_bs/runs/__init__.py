"""A run on disk: its experiment, its cohorts and folds, its locks, and what can be resumed. Needs no TensorFlow."""

from doubleunet_bs.runs.create_run import create_run
from doubleunet_bs.runs.experiments import Experiment, paper_experiment
from doubleunet_bs.runs.run_folder import Run, open_run

__all__ = ["Experiment", "Run", "create_run", "open_run", "paper_experiment"]
