"""The files of a prediction: one folder per scan, named by the case pseudonym, that appears whole or not at all."""

import contextlib
import dataclasses
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from doubleunet_bs import __version__
from doubleunet_bs.connected_components import CONNECTIVITY
from doubleunet_bs.constants import VIEWS
from doubleunet_bs.display import png_bytes
from doubleunet_bs.errors import RunError
from doubleunet_bs.files import replaced_folder, write_json, write_text
from doubleunet_bs.inference.model_description import INTENDED_USE, MASK_VALUES
from doubleunet_bs.inference.predictor import Prediction
from doubleunet_bs.results.labelme_output import (
    ViewAnnotation,
    annotate,
    gone_on_error,
    labelme_file,
    metastatic_label,
    write_annotations,
)
from doubleunet_bs.results.lesion_list import (
    BODY_DEFINITION,
    PredictedLesion,
    all_warnings,
    area_mm2,
    body_pixels,
    find_lesions,
)
from doubleunet_bs.results.overlay import draw_overlay, overlay_picture, view_pictures
from doubleunet_bs.results.patient_report import ReportScan, report_page, report_scan
from doubleunet_bs.results.result_files import (
    CAPTURE,
    FORMAT,
    OUTPUTS,
    OVERLAY,
    REPORT,
    RESULT,
    SCAN_COPY,
    annotation_name,
    mask_name,
    picture_name,
    result_folder,
    segmentation_name,
)
from doubleunet_bs.results.source_study import SourceStudy
from doubleunet_bs.scans.bone_scan import BoneScan

_PICTURED = {"labelme", "report"}


@dataclasses.dataclass(frozen=True)
class WrittenResult:
    """Attributes: folder: of the case. result: the content of its `result.json`."""

    folder: Path
    result: dict[str, Any]


def write_prediction(
    out: str | os.PathLike,
    scan: BoneScan,
    prediction: Prediction,
    engine: str = "tensorflow",
    overwrite: bool = False,
    outputs: Collection[str] = OUTPUTS,
    study: SourceStudy | None = None,
    labelme: Mapping[str, Path] | None = None,
    previous: ReportScan | None = None,
) -> WrittenResult:
    """Write a prediction into `out/CASE/`.

    result.json                     lesions, areas, model, gains, warnings; nothing of the patient
    masks     mask_VIEW.npy         uint8 (1024, 256) of 0 and 1, in the pixels of the raw view
              mask_VIEW.png         the same with 0 and 255, to look at
    overlay   overlay.png           both raw views with the outlines of the prediction
    dicom     segmentation_VIEW.dcm DICOM segmentations; not of a missing view
              overlay.dcm           DICOM secondary capture of the overlay
              scan.dcm              the de-identified scan that both refer to; not with `study`
    labelme   annotation_VIEW.json  Labelme outlines to correct; not of a missing view
              view_VIEW.png         the picture they lie on
    report    report.html           a page to read

    Args:
        out: made when it is not there.
        scan, prediction: the scan and what the model says of it.
        engine: what computed it, for the record.
        overwrite: replace the result of an earlier prediction of this case.
        outputs: which of OUTPUTS to write.
        study: the patient's identity and the source frames; it goes into the DICOM files alone. None leaves it out.
        labelme: from `annotation_paths`: further, self-contained Labelme files to write.
        previous: an earlier scan for the report.

    Raises:
        RunError: see `result_folder` and `write_annotations`; or the folder cannot be written; or the scan's header
            allows no DICOM result.
    """
    folder = result_folder(out, prediction.case, overwrite)
    lesions = find_lesions(scan, prediction)
    present = [view for view in VIEWS if view not in scan.missing_views]
    label = metastatic_label(prediction.model.preparation.classes)
    annotations = {view: annotate(prediction.masks[view], label) for view in present}
    result = describe_prediction(scan, prediction, engine, lesions, annotations, outputs, study is not None)
    result["previous"] = None if previous is None else previous.result["case"]
    shown = view_pictures(scan)
    pictures = {view: png_bytes(shown[view]) for view in present} if labelme or _PICTURED & set(outputs) else {}
    picture = overlay_picture(scan, prediction, lesions) if {"overlay", "dicom"} & set(outputs) else None
    try:
        with contextlib.ExitStack() as undo, replaced_folder(folder, overwrite) as new:
            if "masks" in outputs:
                for view, mask in prediction.masks.items():
                    np.save(new / mask_name(view, ".npy"), mask, allow_pickle=False)
                    (new / mask_name(view, ".png")).write_bytes(png_bytes(mask * np.uint8(255)))
            if "overlay" in outputs:
                draw_overlay(new / OVERLAY, picture)
            if "dicom" in outputs:
                # Late: who wants no DICOM result needs no highdicom.
                from doubleunet_bs.results.dicom_results import dicom_results

                for name, content in dicom_results(scan, prediction, picture, engine, study).items():
                    (new / name).write_bytes(content)
            if "labelme" in outputs:
                for view in present:
                    content = labelme_file(annotations[view], scan.anterior.shape, picture_name(view))
                    write_json(new / annotation_name(view), content)
                    (new / picture_name(view)).write_bytes(pictures[view])
            if "report" in outputs:
                page = report_page(report_scan(result, prediction.masks, pictures), previous)
                write_text(new / REPORT, page)
            write_json(new / RESULT, result)
            if labelme:
                write_annotations(labelme, annotations, scan.anterior.shape, pictures)
                # Renaming the folder may fail still; annotations that stayed would stop the next run.
                undo.enter_context(gone_on_error(labelme.values()))
    except OSError as cause:
        raise RunError(f"{folder}: cannot be written ({cause.strerror or cause})") from None
    return WrittenResult(folder, result)


def describe_prediction(
    scan: BoneScan,
    prediction: Prediction,
    engine: str,
    lesions: Collection[PredictedLesion],
    annotations: Mapping[str, ViewAnnotation],
    outputs: Collection[str] = OUTPUTS,
    identified: bool = False,
) -> dict[str, Any]:
    """The content of `result.json`. Scans are named by their pseudonym alone; a file that is not written is null.

    Args:
        scan, prediction, engine, outputs: as in `write_prediction`.
        lesions: of `find_lesions`.
        annotations: view -> Labelme shapes; not of a missing view. Empty when none are made.
        identified: whether the DICOM files carry the patient's identity.
    """
    prepared, model = prediction.prepared, prediction.model
    warnings = all_warnings(scan, prediction)
    bodies = body_pixels(scan, prediction)

    def file(output: str, name: str, exists: bool = True) -> str | None:
        return name if output in outputs and exists else None

    views = {}
    for view in VIEWS:
        missing = view in scan.missing_views
        views[view] = {
            "missing": missing,
            "metastatic_pixels": prediction.lesion_pixels[view],
            "highest_probability": None if missing else float(prediction.probabilities[view].max()),
            "body": None if missing else dataclasses.asdict(prepared.bodies[view]),
            "body_pixels": bodies.get(view),
            "window": dataclasses.asdict(prepared.placements[view]),
            "mask_npy": file("masks", mask_name(view, ".npy")),
            "mask_png": file("masks", mask_name(view, ".png")),
            "segmentation": file("dicom", segmentation_name(view), not missing),
            "annotation": file("labelme", annotation_name(view), not missing),
            "picture": file("labelme", picture_name(view), not missing),
        }
    kinds = [kind for view in VIEWS if view in annotations for kind in annotations[view].kinds] or [None] * len(lesions)
    pixels = sum(lesion.pixels for lesion in lesions)
    body = sum(bodies.values())
    return {
        "format": FORMAT,
        "version": __version__,
        "intended_use": INTENDED_USE,
        "case": prediction.case,
        "phantom": scan.phantom,
        "metastatic_pixels": sum(prediction.lesion_pixels.values()),
        "lesion_rule": f"connected areas of the mask of one view, {CONNECTIVITY} neighbours; views are not matched",
        "lesions": [
            {**dataclasses.asdict(lesion), "annotation_shape": kind}
            for lesion, kind in zip(lesions, kinds, strict=True)
        ],
        "lesion_area": {
            "lesion_pixels": pixels,
            "lesion_area_mm2": area_mm2(pixels, scan.pixel_spacing_mm),
            "body_pixels": body,
            "body_definition": BODY_DEFINITION,
            "fraction_of_body": pixels / body if body else None,
        },
        "raw_shape": list(prepared.raw_shape),
        "pixel_spacing_mm": None if scan.pixel_spacing_mm is None else list(scan.pixel_spacing_mm),
        "view_source": scan.view_source,
        "views": views,
        "mask_values": MASK_VALUES,
        "gains": list(prepared.gains),
        "brightness": prepared.brightness,
        "warnings": warnings,
        "source_sha256": scan.source_sha256,
        "overlay": file("overlay", OVERLAY),
        "report": file("report", REPORT),
        "dicom": {
            "overlay": file("dicom", CAPTURE),
            "scan": file("dicom", SCAN_COPY, not identified),
            "patient_identity": "kept" if identified and "dicom" in outputs else "none",
        },
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
