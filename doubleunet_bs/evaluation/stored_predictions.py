"""Predictions kept beside the scores, so that figures, pictures and the report need no network.

    predictions/predictions.json        which weights predicted which cases of which shards
    predictions/mask/CASE.png           8 bit, 255 where metastatic is predicted
    predictions/probability/CASE.png    16 bit, the logit of the metastatic probability, see `encode_probability`
    predictions/CASE.png                the overlay drawn from them; it goes when they do

Mask and probability have the size of the prepared image. All figures that need a probability are computed from the
kept ones, so that scoring again gives the same figures. The logit is kept and not the probability itself: lesions are
ranked by their probabilities (`evaluation.detection`), and a trained network's crowd together just below 1, where equal
steps of the probability would make ties of them.
"""

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from doubleunet_bs.errors import RunError
from doubleunet_bs.files import read_json, replace_file, write_json

PREDICTIONS = "predictions"
FORMAT = 2
_INDEX, _MASK, _PROBABILITY = "predictions.json", "mask", "probability"
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

        All of them, when what is there was predicted by other weights or on other shards, or its index is unreadable.
        """
        known = set(self._known())
        return [case for case in cases if case not in known or not all(path.is_file() for path in self._paths(case))]

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
            mask_path, probability_path = self._paths(case)
            _write(mask_path, np.asarray(mask, bool).astype(np.uint8) * 255)
            _write(probability_path, encode_probability(probability))
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
        """Remove all kept predictions, whoever made them, and the overlays that show them."""
        (self.folder / _INDEX).unlink(missing_ok=True)
        for folder in (self.folder / _MASK, self.folder / _PROBABILITY, self.folder):
            for path in folder.glob("*.png"):
                path.unlink()

    def _paths(self, case: str) -> tuple[Path, Path]:
        return _files(self.folder, case)

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
    again: bool = False,
) -> list[str]:
    """Predict those of `cases` that are not kept yet.

    Args:
        stored: where predictions are kept.
        cases: that are needed.
        predict: takes cases, yields (case, mask, probability); not called when all are there.
        again: predict all of them anew.

    Returns:
        The cases that were predicted now.
    """
    if again:
        stored.clear()
    missing = stored.missing(cases)
    if missing:
        stored.keep(predict(missing))
    return missing


def read_prediction(folder: Path, case: str, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A kept prediction: the mask, (rows, columns) bool, and the probability, (rows, columns) float32, as
    `decode_probability` gives it.

    Args:
        folder: `RUN/fold_01/predictions`. case: pseudonym. shape: (rows, columns) that both must have.

    Raises:
        RunError: a file is missing, damaged or of another size.
    """
    mask_path, probability_path = _files(folder, case)
    mask = _read(mask_path, np.uint8, shape)
    return mask > 0, decode_probability(_read(probability_path, np.uint16, shape))


def encode_probability(probability: np.ndarray) -> np.ndarray:
    """Probabilities as they are kept: logits in steps of 1/2000 (decided here).

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


def _files(folder: Path, case: str) -> tuple[Path, Path]:
    return folder / _MASK / f"{case}.png", folder / _PROBABILITY / f"{case}.png"


def _write(path: str | os.PathLike, image: np.ndarray) -> None:
    _, content = cv2.imencode(".png", image)
    replace_file(path, lambda temporary: content.tofile(temporary))


def _read(path: Path, kind: type[np.unsignedinteger], shape: tuple[int, int]) -> np.ndarray:
    # imdecode and not imread: OpenCV's reader writes its complaints to standard error.
    content = np.fromfile(path, np.uint8) if path.is_file() else np.zeros(0, np.uint8)
    image = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
    if image is None or image.dtype != kind or image.shape != tuple(shape):
        raise RunError(f"{path}: not a kept prediction of {shape[0]} x {shape[1]} pixels; evaluate with --again")
    return image
