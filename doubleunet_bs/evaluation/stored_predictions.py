"""Predictions kept beside the scores, so that figures, pictures and the report need no network.

    predictions/predictions.json    which weights predicted which cases of which shards
    predictions/CASE.npz            `mask`, bool, and `probability`, uint16, see `encode_probability`
    predictions/CASE.png            the overlay drawn from them, removed together with them

All figures that need a probability are computed from the kept ones, so that scoring again gives the same figures. The
logit is kept and not the probability itself: patients are ranked by the probabilities of their lesions, and those of a
trained network crowd together just below 1, where equal steps of the probability would make ties of them.
"""

import dataclasses
import functools
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from doubleunet_bs.errors import RunError
from doubleunet_bs.files import read_json, replace_file, write_json

PREDICTIONS = "predictions"
FORMAT = 3
_INDEX = "predictions.json"
_FOLDERS_OF_FORMAT_2 = ("mask", "probability")
_STEPS, _ZERO, _ONE = 2000, 0, 2**16 - 1
_HALF = 2**15


@dataclasses.dataclass(frozen=True)
class StoredPredictions:
    """The predictions in a folder that belong to one model and one set of shards.

    Attributes:
        folder: `RUN/fold_01/predictions`.
        weights: SHA-256 of the weights, of an ensemble one for each member.
        data_fingerprint: of the shards.
    """

    folder: Path
    weights: tuple[str, ...]
    data_fingerprint: str

    def missing(self, cases: Iterable[str]) -> list[str]:
        """Those of `cases` that still have to be predicted, in their order.

        All of them, when what is there was predicted by other weights or on other shards, has a former format, or its
        index is unreadable.
        """
        known = set(self._known())
        return [case for case in cases if case not in known or not _path(self.folder, case).is_file()]

    def keep(self, predictions: Iterable[tuple[str, np.ndarray, np.ndarray]]) -> None:
        """Write predictions, then note them; what was there of other weights is removed first.

        Args:
            predictions: (case, mask, probability); masks of 0 and 1, probabilities between 0 and 1.
        """
        known = self._known()
        if not known:
            self.clear()
        for case, mask, probability in predictions:
            # First, so that an interruption leaves no picture of what was predicted before.
            (self.folder / f"{case}.png").unlink(missing_ok=True)
            arrays = {"mask": np.asarray(mask, bool), "probability": encode_probability(probability)}
            replace_file(_path(self.folder, case), functools.partial(_save, arrays))
            known.append(case)
        write_json(
            self.folder / _INDEX,
            {
                "format": FORMAT,
                "weights_sha256": list(self.weights),
                "data_fingerprint": self.data_fingerprint,
                "cases": list(dict.fromkeys(known)),
            },
        )

    def read(self, case: str, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """See `read_prediction`."""
        return read_prediction(self.folder, case, shape)

    def clear(self) -> None:
        """Remove all kept predictions, whatever made them, and the overlays that show them."""
        (self.folder / _INDEX).unlink(missing_ok=True)
        for path in (*self.folder.glob("*.npz"), *self.folder.glob("*.png")):
            path.unlink()
        for name in _FOLDERS_OF_FORMAT_2:
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def _known(self) -> list[str]:
        path = self.folder / _INDEX
        if not path.is_file():
            return []
        try:
            content = read_json(path, RunError, "index of predictions")
        except RunError:
            return []
        own = {"format": FORMAT, "weights_sha256": list(self.weights), "data_fingerprint": self.data_fingerprint}
        if not isinstance(content, dict) or any(content.get(name) != value for name, value in own.items()):
            return []
        cases = content.get("cases")
        return [case for case in cases if isinstance(case, str)] if isinstance(cases, list) else []


def complete(
    stored: StoredPredictions,
    cases: Sequence[str],
    predict: Callable[[list[str]], Iterable[tuple[str, np.ndarray, np.ndarray]]],
    recompute: bool = False,
) -> list[str]:
    """Predict those of `cases` that are not kept yet.

    Args:
        stored: where predictions are kept.
        cases: that are needed.
        predict: takes cases, yields (case, mask, probability); not called when all are there.
        recompute: ignore what is kept and predict all of them.

    Returns:
        The cases that were predicted now.
    """
    if recompute:
        stored.clear()
    missing = stored.missing(cases)
    if missing:
        stored.keep(predict(missing))
    return missing


def read_prediction(folder: Path, case: str, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Read a kept prediction.

    Args:
        folder: `RUN/fold_01/predictions`. case: pseudonym. shape: (rows, columns) that both arrays must have.

    Returns:
        The mask, bool, and the probability, float32, as `decode_probability` gives it.

    Raises:
        RunError: the file is missing, damaged or of another size.
    """
    path = _path(folder, case)
    try:
        with np.load(path, allow_pickle=False) as kept:
            mask, code = kept["mask"], kept["probability"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        mask = code = np.zeros(0)
    if (mask.dtype, code.dtype) != (bool, np.uint16) or not mask.shape == code.shape == tuple(shape):
        raise RunError(f"{path}: not a kept prediction of {shape[0]} x {shape[1]} pixels; evaluate with --recompute")
    return mask, decode_probability(code)


def encode_probability(probability: np.ndarray) -> np.ndarray:
    """Probabilities as they are kept: logits in steps of 1/2000.

    Args:
        probability: of any shape, 0 to 1; what lies outside counts as 0 or 1.

    Returns:
        uint16 of the same shape: 32768 + round(2000 x logit), from 1 to 65534, and 0 and 65535 for the probabilities 0
        and 1. Logits beyond 16.38 are cut off there: float32 has one number between that probability and 1.
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


def _save(arrays: dict[str, np.ndarray], path: Path) -> None:
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def _path(folder: Path, case: str) -> Path:
    return folder / f"{case}.npz"
