"""Predictions kept beside the scores, so that figures, pictures and the report need no network.

    predictions/predictions.json    which weights predicted which cases of which shards
    predictions/CASE.npz            `mask`, bool, and `probability`, uint16, see `encode_probability`; of a model with a
                                    class of benign lesions also `benign`, bool
    predictions/CASE.png            the overlay drawn from them, removed together with them

Scores are computed from what is kept. It is the logit: patients are ranked by probabilities that crowd together just
below 1, where equal steps of the probability would make ties of them.
"""

import dataclasses
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from doubleunet_bs.constants import CASE_NAME
from doubleunet_bs.errors import RunError
from doubleunet_bs.files import read_json, replace_file, write_json
from doubleunet_bs.preparation.shards import load_arrays

PREDICTIONS = "predictions"
FORMAT = 3
_INDEX = "predictions.json"
_STEPS, _ZERO, _ONE = 2000, 0, 2**16 - 1
_HALF = 2**15


@dataclasses.dataclass(frozen=True)
class StoredPredictions:
    """The predictions in a folder that belong to one model and one set of shards.

    Attributes:
        folder: `RUN/fold_01/predictions`.
        weights: SHA-256 of the weights, of an ensemble one for each member.
        data_fingerprint: of the shards.
        benign: whether the model has a class of benign lesions.
    """

    folder: Path
    weights: tuple[str, ...]
    data_fingerprint: str
    benign: bool = False

    def missing(self, cases: Iterable[str]) -> list[str]:
        """Those of `cases` to be predicted: all, when what is there is of other weights, shards or format."""
        known = set(self._known())
        return [case for case in cases if case not in known or not (self.folder / f"{case}.npz").is_file()]

    def keep(self, predictions: Iterable[tuple[str, np.ndarray, np.ndarray]]) -> None:
        """Write (case, mask, probability), then note them; what was there of other weights is removed first.

        A mask is 1 where metastatic is predicted, 2 where benign is.
        """
        known = self._known()
        if not known:
            self.clear()
        for case, mask, probability in predictions:
            # First, so that an interruption leaves no picture of what was predicted before.
            (self.folder / f"{case}.png").unlink(missing_ok=True)
            code = encode_probability(probability)
            mask = np.asarray(mask, np.uint8)
            benign = {"benign": mask == 2} if self.benign else {}
            save = functools.partial(np.savez_compressed, mask=mask == 1, probability=code, **benign)
            replace_file(self.folder / f"{case}.npz", save)
            known.append(case)
        write_json(self.folder / _INDEX, {**self._owner(), "cases": list(dict.fromkeys(known))})

    def clear(self) -> None:
        """Remove all kept predictions, whatever made them, and the overlays that show them."""
        (self.folder / _INDEX).unlink(missing_ok=True)
        for path in (*self.folder.glob("*.npz"), *self.folder.glob("*.png")):
            path.unlink()

    def read(self, case: str, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """See `read_prediction`."""
        return read_prediction(self.folder, case, shape, self.benign)

    def _owner(self) -> dict[str, Any]:
        return {"format": FORMAT, "weights_sha256": list(self.weights), "data_fingerprint": self.data_fingerprint}

    def _known(self) -> list[str]:
        """The cases in the index; none where it is missing, unreadable or of another owner."""
        try:
            content = read_json(self.folder / _INDEX, RunError, "index of predictions")
        except RunError:
            return []
        if not isinstance(content, dict) or any(content.get(name) != value for name, value in self._owner().items()):
            return []
        cases = content.get("cases")
        if isinstance(cases, list) and all(isinstance(case, str) and CASE_NAME.fullmatch(case) for case in cases):
            return cases
        return []


def read_prediction(
    folder: Path, case: str, shape: tuple[int, int], benign: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Read the mask, bool, the probability, float32, and with `benign` the mask of benign lesions, of a case.

    Raises:
        RunError: the file is missing, damaged or not of this (rows, columns).
    """
    path = folder / f"{case}.npz"
    types = {"mask": np.dtype(bool), "probability": np.dtype("<u2")} | ({"benign": np.dtype(bool)} if benign else {})
    try:
        kept = load_arrays(path, {name: (tuple(shape), dtype) for name, dtype in types.items()})
    except ValueError:
        message = f"{path}: not a kept prediction of {shape[0]} x {shape[1]} pixels; evaluate with --recompute"
        raise RunError(message) from None
    return kept["mask"], decode_probability(kept["probability"]), kept.get("benign")


def encode_probability(probability: np.ndarray) -> np.ndarray:
    """Probabilities as uint16 logits, 32768 + round(2000 x logit); 0 and 65535 are the probabilities 0 and 1.

    Values outside of 0 to 1 count as 0 or 1. Logits are cut off at 16.38, where float32 has one number below 1.
    """
    value = np.clip(np.asarray(probability, np.float64), 0, 1)
    with np.errstate(divide="ignore"):
        logit = np.log(value) - np.log1p(-value)
    code = np.clip(np.rint(_STEPS * logit) + _HALF, _ZERO + 1, _ONE - 1)
    return np.where(value == 0, _ZERO, np.where(value == 1, _ONE, code)).astype(np.uint16)


def decode_probability(code: np.ndarray) -> np.ndarray:
    """The inverse of `encode_probability`, float32: 0 and 1 exactly, others within 0.0001 and in the order they had."""
    logit = (np.arange(_ONE + 1) - _HALF) / _STEPS
    table = 1 / (1 + np.exp(-logit))
    table[[_ZERO, _ONE]] = 0, 1
    return table.astype(np.float32)[code]
