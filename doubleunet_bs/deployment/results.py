"""The files of a prediction: one folder per scan, named by the case pseudonym, that appears whole or not at all."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from doubleunet_bs import __version__
from doubleunet_bs.deployment.model_description import INTENDED_USE, MASK_VALUES
from doubleunet_bs.deployment.overlay import draw_overlay
from doubleunet_bs.deployment.predictor import Prediction
from doubleunet_bs.deployment.replaced_folder import replaced_folder
from doubleunet_bs.errors import RunError
from doubleunet_bs.files import write_json
from doubleunet_bs.preparation.case import VIEWS
from doubleunet_bs.scans.bone_scan import BoneScan

FORMAT = 1
RESULT, OVERLAY = "result.json", "overlay.png"


def write_prediction(
    out: str | os.PathLike, scan: BoneScan, prediction: Prediction, engine: str = "tensorflow", overwrite: bool = False
) -> Path:
    """Write a prediction into `out/CASE/`.

    result.json        model, pixel counts, gains, warnings; nothing of the patient
    overlay.png        both raw views with the outlines of the prediction
    mask_VIEW.npy      uint8 (1024, 256) of 0 and 1, in the pixels of the raw view
    mask_VIEW.png      the same with 0 and 255, to look at

    Args:
        out: made when it is not there.
        scan, prediction: the scan and what the model says of it.
        engine: what computed it, for the record.
        overwrite: replace the result of an earlier prediction of this case.

    Returns:
        The case's folder.

    Raises:
        RunError: see `result_folder`, or the folder cannot be written.
    """
    folder = result_folder(out, prediction.case, overwrite)
    try:
        with replaced_folder(folder) as new:
            for view, mask in prediction.masks.items():
                np.save(new / mask_name(view, ".npy"), mask, allow_pickle=False)
                Image.fromarray(mask * np.uint8(255)).save(new / mask_name(view, ".png"))
            draw_overlay(new / OVERLAY, scan, prediction)
            write_json(new / RESULT, describe_prediction(scan, prediction, engine))
    except OSError as cause:
        raise RunError(f"{folder}: cannot be written ({cause.strerror or cause})") from None
    return folder


def result_folder(out: str | os.PathLike, case: str, overwrite: bool = False) -> Path:
    """Where the result of a case goes.

    Raises:
        RunError: there is one already and `overwrite` is off, or something else in its place.
    """
    folder = Path(out) / case
    if folder.exists():
        if not overwrite:
            raise RunError(f"{folder}: exists already; give --overwrite, or another --out folder")
        if not (folder / RESULT).is_file():
            raise RunError(f"{folder}: is not a result of this package and is left alone; choose another --out folder")
    return folder


def mask_name(view: str, suffix: str) -> str:
    """File name of a view's mask: "mask_anterior.npy"."""
    return f"mask_{view}{suffix}"


def describe_prediction(scan: BoneScan, prediction: Prediction, engine: str) -> dict[str, Any]:
    """The content of `result.json`. Scans are named by their pseudonym alone."""
    prepared, model = prediction.prepared, prediction.model
    views = {}
    for view in VIEWS:
        missing = view in scan.missing_views
        views[view] = {
            "missing": missing,
            "metastatic_pixels": prediction.lesion_pixels[view],
            "highest_probability": None if missing else float(prediction.probabilities[view].max()),
            "body": None if missing else dataclasses.asdict(prepared.bodies[view]),
            "window": dataclasses.asdict(prepared.placements[view]),
            "mask_npy": mask_name(view, ".npy"),
            "mask_png": mask_name(view, ".png"),
        }
    return {
        "format": FORMAT,
        "version": __version__,
        "intended_use": INTENDED_USE,
        "case": prediction.case,
        "metastatic_pixels": sum(prediction.lesion_pixels.values()),
        "raw_shape": list(prepared.raw_shape),
        "pixel_spacing_mm": None if scan.pixel_spacing_mm is None else list(scan.pixel_spacing_mm),
        "view_source": scan.view_source,
        "views": views,
        "mask_values": MASK_VALUES,
        "gains": list(prepared.gains),
        "brightness": prepared.brightness,
        "warnings": list(prediction.warnings),
        "source_sha256": scan.source_sha256,
        "overlay": OVERLAY,
        "model": {
            "name": model.name,
            "experiment": model.experiment["name"],
            "fold": model.fold,
            "validation_f1": model.validation_f1,
            "weights_sha256": model.weights_sha256,
            "data_fingerprint": model.data_fingerprint,
            "version": model.version,
            "preparation": model.preparation.to_json(),
            "image_shape": list(model.image_shape),
        },
        "engine": engine,
    }
