"""Negative mining: what a model takes for metastases on normal scans becomes the non-metastatic class (section 2.5).

    1. a network is trained on the positive scans of the fold alone               fold_01/mining_model/
    2. it segments the normal scans; whatever it finds there is a false positive   fold_01/mined_negatives/
    3. the fold is trained on the positive scans and on the normal ones, in which those pixels are class 1, others 0

Each fold mines with its own model: that of another fold has trained on scans that this one tests or validates on.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from doubleunet_bs.constants import NON_METASTATIC
from doubleunet_bs.display import save_png
from doubleunet_bs.errors import RunError
from doubleunet_bs.files import new_folder, read_json, write_json
from doubleunet_bs.network.metrics import metastatic_mask, network_input
from doubleunet_bs.preparation.shards import Dataset
from doubleunet_bs.preparation.summaries import overlay
from doubleunet_bs.training.training_state import DAMAGED_ARCHIVE

FORMAT = 1
LABELS, DESCRIPTION = "labels.npz", "mined.json"


def mine_negatives(
    model: keras.Model, dataset: Dataset, cases: Sequence[int], batch_size: int
) -> dict[int, np.ndarray]:
    """Segment normal scans (`cases`: their indices), `batch_size` at once.

    Returns:
        Index -> (rows, columns) bool: pixels called metastatic, all of them false positives.
    """
    rows, columns = dataset.image_shape

    @tf.function(input_signature=[tf.TensorSpec((None, rows, columns), tf.uint8)])
    def segment(grey):
        return metastatic_mask(model(network_input(grey), training=False))

    found: dict[int, np.ndarray] = {}
    for start in range(0, len(cases), batch_size):
        batch = [int(index) for index in cases[start : start + batch_size]]
        masks = segment(tf.constant(np.stack([dataset.grey(index) for index in batch]))).numpy()
        found.update(zip(batch, masks.astype(bool), strict=True))
    return found


def save_mined(path: str | os.PathLike, dataset: Dataset, masks: Mapping[int, np.ndarray], model_sha256: str) -> None:
    """Write the new folder of mined labels, whole or not at all.

    `labels.npz` holds for each case its mask, packed to bits; `mined.json` the number of its pixels and the SHA-256 of
    the weights that found them; CASE.png shows the scan with the outline of what becomes non-metastatic.
    """
    with new_folder(path) as folder:
        names = {index: dataset.cases[index].case for index in sorted(masks)}
        packed: dict[str, Any] = {name: np.packbits(masks[index]) for index, name in names.items()}
        np.savez_compressed(folder / LABELS, **packed)
        for index, name in names.items():
            labels = masks[index].astype(np.uint8) * NON_METASTATIC
            save_png(folder / f"{name}.png", overlay(dataset.grey(index), labels, dataset.cases[index]))
        write_json(
            folder / DESCRIPTION,
            {
                "format": FORMAT,
                "rule": "what the mining model calls metastatic on a normal scan is class 1, everything else class 0",
                "model_sha256": model_sha256,
                "image_shape": list(dataset.image_shape),
                "false_positive_pixels": {name: int(masks[index].sum()) for index, name in names.items()},
            },
        )


def load_mined(
    path: str | os.PathLike, dataset: Dataset, cases: Sequence[int], model_sha256: str
) -> dict[int, np.ndarray]:
    """Read what `save_mined` wrote of exactly these cases with exactly this model; the masks as `mine_negatives` gives.

    Raises `RunError`: missing, damaged, of another model or of other scans.
    """
    path = Path(path)
    content = read_json(path / DESCRIPTION, RunError, "description of mined labels")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RunError(f"{path / DESCRIPTION}: not a description of mined labels of format {FORMAT}")
    if content.get("model_sha256") != model_sha256:
        raise RunError(f"{path}: mined by another model than the one beside it; remove the folder to mine again")
    names = {dataset.cases[index].case: int(index) for index in cases}
    rows, columns = dataset.image_shape
    try:
        with np.load(path / LABELS, allow_pickle=False) as archive:
            packed = dict(archive)
        if content.get("image_shape") != [rows, columns] or set(packed) != set(names):
            raise RunError(f"{path}: of other scans than this fold mines; remove the folder to mine again")
        expected = ((rows * columns + 7) // 8,), np.uint8
        if any(not isinstance(bits, np.ndarray) or (bits.shape, bits.dtype) != expected for bits in packed.values()):
            raise ValueError("not the masks of this image")
    except DAMAGED_ARCHIVE as cause:
        raise RunError(f"{path / LABELS}: damaged ({type(cause).__name__}); remove {path} to mine again") from None
    return {
        names[name]: np.unpackbits(bits, count=rows * columns).reshape(rows, columns).astype(bool)
        for name, bits in packed.items()
    }


class MinedDataset:
    """A dataset in which the mined scans have other labels. All else is as in the dataset beneath."""

    def __init__(self, dataset: Dataset, masks: Mapping[int, np.ndarray]):
        self._dataset = dataset
        self.cases, self.settings = dataset.cases, dataset.settings
        self.image_shape, self.fingerprint = dataset.image_shape, dataset.fingerprint
        # Packed: a mask of 640 x 512 pixels takes 40 kB.
        self._packed = {index: np.packbits(mask) for index, mask in masks.items()}

    def counts(self, index: int) -> np.ndarray:
        """uint16 array of `image_shape`, as in the dataset beneath."""
        return self._dataset.counts(index)

    def grey(self, index: int) -> np.ndarray:
        """uint8 array of `image_shape`, as in the dataset beneath."""
        return self._dataset.grey(index)

    def labels(self, index: int) -> np.ndarray:
        """uint8 array of `image_shape` of classes: for a mined scan 1 at false positives, 0 elsewhere."""
        if index not in self._packed:
            return self._dataset.labels(index)
        rows, columns = self.image_shape
        mask = np.unpackbits(self._packed[index], count=rows * columns).reshape(rows, columns)
        return mask * np.uint8(NON_METASTATIC)
