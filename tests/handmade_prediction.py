"""Predictions made by hand, without a network: what results are written from."""

import dataclasses

import intensity_run
import numpy as np
from intensity_run import LEVEL, SETTINGS

from doubleunet_bs.constants import VIEWS
from doubleunet_bs.findings.lesion_list import PredictedLesion, find_areas, find_lesions
from doubleunet_bs.inference.model_description import ModelDescription
from doubleunet_bs.inference.predictor import Prediction
from doubleunet_bs.preparation import prepare_scan
from doubleunet_bs.preparation.settings import PreparationSettings


def description(settings: PreparationSettings = SETTINGS) -> ModelDescription:
    changes = {"preparation": settings, "data_fingerprint": "0" * 64, "weights_sha256": "ab" * 32, "best_epoch": 3}
    experiment = {"name": "focal-tversky-otsu", "classes": 3, "encoder_weights": "none"}
    plain = intensity_run.description(settings.image_shape)
    return dataclasses.replace(plain, experiment=experiment, validation_f1=0.6, **changes)


def make_prediction(scan, masks=None, settings: PreparationSettings = SETTINGS) -> Prediction:
    """Of `masks` (view -> bool or 0 and 1; a view left out is empty), or where the prepared image is bright.

    The probability is 0.9 inside, 0.1 outside.
    """
    prepared = prepare_scan(scan, settings=settings)
    if masks is None:
        masks = prepared.map_back((prepared.grey > LEVEL).astype(np.uint8))
    masks = {view: np.asarray(masks.get(view, np.zeros(prepared.raw_shape)), np.uint8) for view in VIEWS}
    return Prediction(
        case=prepared.case,
        masks=masks,
        probabilities={view: np.where(mask, np.float32(0.9), np.float32(0.1)) for view, mask in masks.items()},
        prepared=prepared,
        warnings=prepared.warnings,
        model=description(settings),
        engine="tensorflow",
    )


def lesions_of(scan, prediction: Prediction) -> tuple[PredictedLesion, ...]:
    """The lesions of both views, as `write_prediction` finds them."""
    return find_lesions(scan, prediction, {view: find_areas(prediction.masks[view]) for view in VIEWS})


def reported(scan, prediction: Prediction, region=None) -> list:
    """The lesions of both views as structured reports take them, all with the same bone, anterior ones with a focus."""
    # highdicom takes a second to import; most users of this module do without.
    from doubleunet_bs.dicom_results.structured_report import ReportedLesion

    areas = {view: find_areas(prediction.masks[view]) for view in VIEWS}
    found = zip(find_lesions(scan, prediction, areas), (area for view in VIEWS for area in areas[view]), strict=True)
    return [
        ReportedLesion(
            lesion,
            area,
            f"2.25.{1000 + lesion.number}",
            region,
            10 + lesion.number if lesion.view == "anterior" else None,
        )
        for lesion, area in found
    ]
