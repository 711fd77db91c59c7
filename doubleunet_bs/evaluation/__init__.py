"""Scores of a trained network, their tables and the report of a run (paper, section 3).

From Python: `score_masks` compares two masks, `evaluate_run` scores the folds of a run.
"""

import importlib
from typing import TYPE_CHECKING, Any

from doubleunet_bs.evaluation.scores.scan_scores import MaskScore, score_masks

if TYPE_CHECKING:
    from doubleunet_bs.evaluation.evaluate import evaluate_run

__all__ = ["MaskScore", "evaluate_run", "score_masks"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: written scores are read without TensorFlow.
    if name == "evaluate_run":
        return importlib.import_module("doubleunet_bs.evaluation.evaluate").evaluate_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
