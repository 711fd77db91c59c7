"""The result of a prediction: one folder per scan, named by the case pseudonym, that appears whole or not at all."""

import contextlib
import dataclasses
import datetime
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from doubleunet_bs import __version__
from doubleunet_bs.bsi.regions import REGIONS, Region
from doubleunet_bs.connected_components import CONNECTIVITY, find_components
from doubleunet_bs.constants import CLASS_NAMES, NON_METASTATIC, VIEWS
from doubleunet_bs.dicom_results import BSI, CAPTURE, LESIONS, SCAN_COPY, SECOND_SEGMENTATION, SEGMENTATION
from doubleunet_bs.dicom_results.source_study import SourceStudy
from doubleunet_bs.display import labelme_file, png_bytes, region_picture
from doubleunet_bs.errors import RunError, os_reason
from doubleunet_bs.files import json_text, replaced_folder, write_json
from doubleunet_bs.findings.lesion_list import (
    BODY_DEFINITION,
    LesionArea,
    PredictedLesion,
    all_warnings,
    area_mm2,
    body_pixels,
    find_areas,
    find_lesions,
)
from doubleunet_bs.findings.matching import FOCUS_RULE, find_foci, focus_numbers, tracking_uids
from doubleunet_bs.findings.skeleton_result import SkeletonResult, describe_change
from doubleunet_bs.inference.model_description import INTENDED_USE, device_uid
from doubleunet_bs.inference.predictor import Prediction
from doubleunet_bs.results.labelme_output import (
    class_label,
    lesion_shapes,
    removed_on_error,
    write_annotations,
)
from doubleunet_bs.results.overlay import overlay_picture, thumbnail, view_pictures
from doubleunet_bs.results.patient_report import ReportScan, report_page
from doubleunet_bs.results.result_files import (
    ANNOTATION,
    FORMAT,
    MASK,
    MASK_PICTURE,
    OVERLAY,
    PICTURE,
    PROBABILITY,
    REGION_MASK,
    REGION_PICTURE,
    REPORT,
    RESULT,
    THUMBNAIL,
    JobSettings,
    case_folder,
    outputs_of,
)
from doubleunet_bs.scans.bone_scan import BoneScan


@dataclasses.dataclass(frozen=True)
class WrittenResult:
    """Attributes: folder: of the case. result: the content of its `result.json`."""

    folder: Path
    result: dict[str, Any]


def write_prediction(
    settings: JobSettings,
    scan: BoneScan,
    prediction: Prediction,
    study: SourceStudy | None = None,
    labelme: Mapping[str, Path] | None = None,
    previous: ReportScan | None = None,
    skeleton: SkeletonResult | None = None,
) -> WrittenResult:
    """Write a prediction into the folder `settings.out`/CASE. `predict --help` lists the files.

    Args:
        settings: where to write, which outputs, whether an earlier result of this case is replaced.
        scan, prediction: the scan and what a model predicts of it.
        study: the patient's identity and the source frames, for the DICOM files alone; None leaves the patient out.
        labelme: from `annotation_paths`: further, self-contained Labelme files to write.
        previous: an earlier scan for the report.
        skeleton: regions and Bone Scan Index, from a model of the skeleton.

    Raises:
        RunError: something is in the way or cannot be written.
        ScanError: "unreferable": the scan's header allows no DICOM result.
        ValueError: the prediction or the study is of another scan.
    """
    if prediction.case != scan.case:
        raise ValueError(f"the prediction is of {prediction.case}, the scan is {scan.case}: give them together")
    if study is not None and study.source_sha256 != scan.source_sha256:
        raise ValueError(f"{scan.case}: the study was read from other files: give read_source_study the scan's files")
    folder = case_folder(settings.out, prediction.case, settings.overwrite)
    outputs = outputs_of(scan, settings.outputs)
    present = [view for view in VIEWS if view not in scan.missing_views]
    areas = {view: find_areas(prediction.masks[view]) for view in VIEWS}
    lesions = find_lesions(scan, prediction, areas)
    label = class_label(prediction.model.preparation.classes)
    outlined = {view: lesion_shapes(areas[view], label) for view in present}
    kinds = [shape["shape_type"] for view in present for shape in outlined[view]]
    if prediction.benign:
        # With the shapes of the metastatic areas `prepare --benign own` reads the prediction back.
        name = class_label(prediction.model.preparation.classes, NON_METASTATIC, CLASS_NAMES[NON_METASTATIC])
        for view in present:
            outlined[view] += lesion_shapes(find_areas(prediction.benign[view]), name)
    bones = bones_of(lesions, areas, skeleton)
    result = describe_prediction(scan, prediction, lesions, bones, outputs, study, kinds)
    result["previous"] = None if previous is None else previous.result["case"]
    _add_index(result, skeleton)
    if skeleton and previous:
        result["bone_scan_index"]["change"] = describe_change(result, previous.result)
    tracking = tracking_uids(result, None if previous is None else previous.result)
    for lesion in result["lesions"]:
        lesion["tracking_uid"] = tracking[lesion["number"]]

    shown = view_pictures(scan)
    pictures: dict[str, bytes] = {}
    if labelme or "labelme" in outputs:
        pictures = {view: png_bytes(shown[view]) for view in present}
    files: dict[str, bytes] = {}
    if "masks" in outputs:
        for view, mask in prediction.masks.items():
            # 1 and 2 of `mask_values`; white and grey in the picture.
            values = mask.copy()
            if prediction.benign:
                values[prediction.benign[view] == 1] = 2
            buffer = io.BytesIO()
            np.save(buffer, values, allow_pickle=False)
            files[MASK.format(view)] = buffer.getvalue()
            files[MASK_PICTURE.format(view)] = png_bytes(np.array([0, 255, 128], np.uint8)[values])
        for view, regions in (skeleton.regions if skeleton else {}).items():
            buffer = io.BytesIO()
            np.save(buffer, regions, allow_pickle=False)
            files[REGION_MASK.format(view)] = buffer.getvalue()
            files[REGION_PICTURE.format(view)] = png_bytes(region_picture(regions))
    if {"overlay", "dicom"} & set(outputs):
        foci = {lesion["number"]: lesion["focus"] for lesion in result["lesions"]}
        picture = overlay_picture(scan, prediction, lesions, shown, foci, skeleton)
        if "overlay" in outputs:
            files[OVERLAY] = png_bytes(picture)
        if "dicom" in outputs:
            # Imported when it is needed: highdicom takes more than a second.
            from doubleunet_bs.dicom_results.make_results import dicom_results
            from doubleunet_bs.dicom_results.structured_report import ReportedLesion

            found = zip(lesions, (area for view in VIEWS for area in areas[view]), result["lesions"], strict=True)
            reported = [
                ReportedLesion(lesion, area, entry["tracking_uid"], (bones or {}).get(lesion.number), entry["focus"])
                for lesion, area, entry in found
            ]
            files |= dicom_results(scan, prediction, picture, reported, study, skeleton)
    if "labelme" in outputs:
        for view in present:
            annotation = labelme_file(outlined[view], scan.anterior.shape, PICTURE.format(view))
            files[ANNOTATION.format(view)] = json_text(annotation).encode()
            files[PICTURE.format(view)] = pictures[view]
    if "report" in outputs:
        counts = {view: getattr(scan, view) for view in present}
        shown_scan = ReportScan(result, areas, counts, regions=skeleton.regions if skeleton else {})
        files[REPORT] = report_page(shown_scan, previous).encode()
        files[THUMBNAIL] = png_bytes(thumbnail(scan, prediction, shown))
    if "probability" in outputs:
        for view, probability in prediction.probabilities.items():
            levels = np.rint(probability * 65535).astype(np.uint16)
            files[PROBABILITY.format(view)] = png_bytes(Image.fromarray(levels))

    try:
        with contextlib.ExitStack() as undo, replaced_folder(folder, settings.overwrite) as new:
            for name, content in files.items():
                (new / name).write_bytes(content)
            write_json(new / RESULT, result)
            if labelme:
                write_annotations(labelme, outlined, scan.anterior.shape, pictures)
                # Renaming the folder may still fail. `prepare` would take what is left behind for the truth.
                undo.enter_context(removed_on_error(labelme.values()))
    except OSError as cause:
        raise RunError(f"its results cannot be written to {folder} ({os_reason(cause)})") from None
    return WrittenResult(folder, result)


def bones_of(
    lesions: Sequence[PredictedLesion],
    areas: Mapping[str, Sequence[LesionArea]],
    skeleton: SkeletonResult | None,
) -> dict[int, Region] | None:
    """Number of a lesion -> the region that most of its pixels lie in; lesions outside of all regions are left out.

    `lesions` and `areas` come from `find_lesions` and `find_areas`, in one order. None without a skeleton.
    """
    if skeleton is None:
        return None
    found = {}
    for lesion, area in zip(lesions, (area for view in VIEWS for area in areas[view]), strict=True):
        inside = skeleton.regions[lesion.view][area.box][area.inside]
        counts = np.bincount(inside, minlength=len(REGIONS) + 1)[1:]
        if counts.any():
            found[lesion.number] = REGIONS[int(counts.argmax())]
    return found


def report_scan(scan: BoneScan, prediction: Prediction, skeleton: SkeletonResult | None = None) -> ReportScan:
    """What the report of another scan shows of this one; nothing is written."""
    areas = {view: find_areas(prediction.masks[view]) for view in VIEWS}
    lesions = find_lesions(scan, prediction, areas)
    result = describe_prediction(scan, prediction, lesions, bones_of(lesions, areas, skeleton))
    _add_index(result, skeleton)
    counts = {view: getattr(scan, view) for view in VIEWS if view not in scan.missing_views}
    return ReportScan(result, areas, counts, regions=skeleton.regions if skeleton else {})


def _add_index(result: dict[str, Any], skeleton: SkeletonResult | None) -> None:
    result["bone_scan_index"] = None if skeleton is None else skeleton.to_json()
    result["warnings"] += skeleton.result_warnings if skeleton else ()


def describe_prediction(
    scan: BoneScan,
    prediction: Prediction,
    lesions: Sequence[PredictedLesion],
    bones: Mapping[int, Region] | None = None,
    outputs: Collection[str] = (),
    study: SourceStudy | None = None,
    kinds: Sequence[str | None] = (),
) -> dict[str, Any]:
    """The content of `result.json`. The scan is named by its pseudonym alone; a file that is not written is null.

    Args:
        scan, prediction, lesions: the scan, the prediction, and `find_lesions` of both.
        bones: from `bones_of`.
        outputs: members of `result_files.OUTPUTS`.
        study: the patient's identity, where the DICOM files carry it.
        kinds: of the Labelme shapes of the lesions; empty when none are made.
    """
    regions = {number: region.name for number, region in (bones or {}).items()}
    prepared, model = prediction.prepared, prediction.model
    bodies = body_pixels(scan, prediction)

    def file(output: str, name: str, exists: bool = True) -> str | None:
        return name if output in outputs and exists else None

    views = {}
    for view in VIEWS:
        missing = view in scan.missing_views
        views[view] = {
            "missing": missing,
            "counts": None if missing else int(getattr(scan, view).sum(dtype=np.int64)),
            "metastatic_pixels": prediction.lesion_pixels[view],
            "highest_probability": None if missing else float(prediction.probabilities[view].max()),
            "body": None if missing else dataclasses.asdict(prepared.bodies[view]),
            "body_pixels": bodies.get(view),
            "window": dataclasses.asdict(prepared.placements[view]),
            "mask_npy": file("masks", MASK.format(view)),
            "mask_png": file("masks", MASK_PICTURE.format(view)),
            "probability": file("probability", PROBABILITY.format(view)),
            "annotation": file("labelme", ANNOTATION.format(view), not missing),
            "picture": file("labelme", PICTURE.format(view), not missing),
        }
    foci = find_foci(lesions, scan.pixel_spacing_mm, prediction.warnings, regions)
    number_of_focus = focus_numbers(foci)
    pixels = sum(lesion.pixels for lesion in lesions)
    body = sum(bodies.values())
    return {
        "format": FORMAT,
        "version": __version__,
        "intended_use": INTENDED_USE,
        "case": prediction.case,
        "phantom": scan.phantom,
        "metastatic_pixels": sum(prediction.lesion_pixels.values()),
        "created": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "threshold": prediction.threshold,
        "mask_rule": prediction.mask_rule,
        "lesion_rule": f"connected areas of the mask of one view, {CONNECTIVITY} neighbours; foci match the views",
        "lesions": [
            {
                **dataclasses.asdict(lesion),
                "annotation_shape": kind,
                "focus": number_of_focus.get(lesion.number),
                "region": regions.get(lesion.number),
            }
            for lesion, kind in zip(lesions, kinds or [None] * len(lesions), strict=True)
        ],
        "foci": None if foci is None else [dataclasses.asdict(focus) for focus in foci],
        "focus_rule": FOCUS_RULE,
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
        "mask_values": model.mask_values,
        "benign": describe_benign(prediction),
        "gains": list(prepared.gains),
        "brightness": prepared.brightness,
        "warnings": all_warnings(scan, prediction),
        "source_sha256": scan.source_sha256,
        "pixel_sha256": scan.pixel_sha256,
        "overlay": file("overlay", OVERLAY),
        "report": file("report", REPORT),
        "thumbnail": file("report", THUMBNAIL),
        "dicom": {
            "segmentation": file("dicom", SEGMENTATION),
            "second_segmentation": file("dicom", SECOND_SEGMENTATION, study is not None and study.two_series),
            "lesions": file("dicom", LESIONS, bool(lesions)),
            "bone_scan_index": file("dicom", BSI, bones is not None),
            "overlay": file("dicom", CAPTURE),
            "scan": file("dicom", SCAN_COPY, study is None),
            "patient_identity": "kept" if study and "dicom" in outputs else "none",
        },
        "model": {
            "name": model.name,
            "experiment": model.experiment["name"],
            "fold": model.fold,
            "folds": [{"fold": one.fold, "validation_f1": one.validation_f1} for one in model.folds],
            "validation_f1": model.validation_f1,
            "quality": model.quality,
            "quality_warning": model.quality_warning,
            "trained_on": model.trained_on,
            "training": model.training,
            "cohort": model.cohort,
            "training_summary": model.training_summary,
            "weights_sha256": model.weights_sha256,
            "device_uid": device_uid(model.weights_sha256),
            "data_fingerprint": model.data_fingerprint,
            "version": model.version,
            "preparation": model.preparation.to_json(),
            "image_shape": list(model.image_shape),
        },
        "engine": prediction.engine,
    }


def describe_benign(prediction: Prediction) -> dict[str, dict[str, int]] | None:
    """View -> number of predicted benign areas and of their pixels; None of a model without that class."""
    if prediction.benign is None:
        return None
    return {
        view: {"areas": len(find_components(mask)), "pixels": int(np.count_nonzero(mask))}
        for view, mask in prediction.benign.items()
    }
