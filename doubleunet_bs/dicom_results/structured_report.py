"""Structured reports (DICOM SR, TID 1500) of one scan: its lesions with outlines and figures, and the Bone Scan Index.

A report for each: OHIF stays black when a measurement without a region stands beside the lesions.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import cv2
import highdicom.sr as sr
import numpy as np
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from doubleunet_bs import __version__
from doubleunet_bs.bsi.regions import Region
from doubleunet_bs.constants import PHANTOM_MARK
from doubleunet_bs.dicom_results.result_header import (
    MANUFACTURER,
    MODEL,
    NOT_FOR_DIAGNOSIS,
    ResultHeader,
    add_equipment,
    short_name,
)
from doubleunet_bs.dicom_results.source_study import SourceFrame
from doubleunet_bs.findings.lesion_list import LesionArea, PredictedLesion
from doubleunet_bs.inference.model_description import ModelDescription, device_uid
from doubleunet_bs.inference.predictor import Prediction

LESIONS_SERIES_NUMBER, BSI_SERIES_NUMBER = 9003, 9004
SCHEME = "99DUBS"
TOTAL_COUNTS = CodedConcept("counts-total", SCHEME, "Total counts")
MAXIMUM_COUNTS = CodedConcept("counts-maximum", SCHEME, "Maximum counts")
# Viewers show no modifiers: a second "Probability" could not be distinguished from the mean.
PEAK_PROBABILITY = CodedConcept("probability-peak", SCHEME, "Peak probability")
BONE_SCAN_INDEX = CodedConcept("bsi", SCHEME, "Bone Scan Index")
_METASTATIC = CodedConcept("14799000", "SCT", "Neoplasm, metastatic")
_BONE = CodedConcept("272673000", "SCT", "Bone")
_IMAGING = CodedConcept("363679005", "SCT", "Imaging procedure")
Group = sr.PlanarROIMeasurementsAndQualitativeEvaluations | sr.MeasurementsAndQualitativeEvaluations
_FINE = 4
"""Outlines run within 1 / (2 x this) of a pixel of the edges of the pixels."""


@dataclasses.dataclass(frozen=True, eq=False)
class ReportedLesion:
    """A lesion as the report shows it.

    Attributes:
        lesion, area: its figures and its pixels.
        tracking_uid: the same in the reports of all scans that show it.
        region: the bone it is in; None where no skeleton was predicted.
        focus: its number in report and overlay; None where views were not matched: then that of the area stands.
    """

    lesion: PredictedLesion
    area: LesionArea
    tracking_uid: str
    region: Region | None = None
    focus: int | None = None


def lesion_report(
    prediction: Prediction, header: ResultHeader, lesions: Sequence[ReportedLesion]
) -> sr.Comprehensive3DSR:
    """The lesions of a scan, a measurement group with an outline for each; at least one.

    A side of the body is never stated. The outline is the outer one, its area that of the pixels.

    Args:
        prediction: whose lesions they are.
        header: of the results of this scan.
        lesions: in the order of their numbers.
    """
    how = [prediction.model.name, f"engine {prediction.engine}", prediction.mask_rule, NOT_FOR_DIAGNOSIS]
    algorithm = sr.AlgorithmIdentification(MODEL, __version__, parameters=how)
    groups = [_group(one, header, algorithm) for one in lesions]
    # A --previous scan changes the identifiers alone: then it is another report.
    uid = header.uid(" ".join(["lesions report", *(one.tracking_uid for one in lesions)]))
    return _report(groups, ("lesions", LESIONS_SERIES_NUMBER, uid), header, [prediction.model])


def bsi_report(
    header: ResultHeader,
    index: float,
    fractions: Mapping[Region, float],
    weights: str,
    models: Sequence[ModelDescription],
) -> sr.Comprehensive3DSR:
    """The Bone Scan Index of a scan, and the fraction of each region that is metastatic.

    Args:
        header: of the results of this scan.
        index: in percent of the skeleton.
        fractions: region -> part of it that is metastatic, 0 to 1.
        weights: name of the weight table: indices of different tables are not compared.
        models: that found lesions and skeleton.
    """
    how = [f"weights {weights}", *(model.name for model in models), NOT_FOR_DIAGNOSIS]
    algorithm = sr.AlgorithmIdentification(MODEL, __version__, parameters=how)
    values = [sr.Measurement(name=BONE_SCAN_INDEX, value=round(index, 4), unit=codes.UCUM.Percent)]
    values += [
        sr.Measurement(
            name=CodedConcept("bsi-fraction", SCHEME, "Metastatic fraction of a region of the skeleton"),
            value=round(100 * fraction, 4),
            unit=codes.UCUM.Percent,
            finding_sites=[sr.FindingSite(CodedConcept(region.snomed, "SCT", region.name.capitalize()))],
        )
        for region, fraction in fractions.items()
    ]
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(header.uid("bsi finding"), _marked("Bone Scan Index", header)),
        finding_type=_METASTATIC,
        finding_sites=[sr.FindingSite(CodedConcept("113192009", "SCT", "Skeletal system"))],
        measurements=values,
        source_images=[
            sr.SourceImageForMeasurementGroup(
                frame.sop_class_uid, frame.sop_instance_uid, None if frame.frame is None else [frame.frame]
            )
            for frame in _distinct(header.frames)
        ],
        algorithm_id=algorithm,
    )
    uid = header.uid(f"bsi report {index} {weights} {' '.join(model.weights_sha256 for model in models)}")
    return _report([group], ("BSI", BSI_SERIES_NUMBER, uid), header, models)


def outline_points(area: LesionArea, frame: SourceFrame) -> np.ndarray:
    """The outer outline of an area in its source frame.

    Returns:
        float array of shape (points, 2), (column, row) where a pixel covers the square from its index to one more, as
        DICOM measures. The last point is the first one.
    """
    fine = area.inside.astype(np.uint8).repeat(_FINE, axis=0).repeat(_FINE, axis=1)
    contours, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    points = (contours[0][:, 0, :] + 0.5) / _FINE + (area.first_column, area.first_row)
    points = points * frame.block + (frame.first_column, 0)
    return np.vstack([points, points[:1]])


def _group(
    one: ReportedLesion, header: ResultHeader, algorithm: sr.AlgorithmIdentification
) -> sr.PlanarROIMeasurementsAndQualitativeEvaluations:
    lesion, frame = one.lesion, header.frames[one.lesion.view]
    source = sr.SourceImageForRegion(
        frame.sop_class_uid, frame.sop_instance_uid, None if frame.frame is None else [frame.frame]
    )
    values: list[tuple[CodedConcept, float, CodedConcept, CodedConcept | None]] = [
        (codes.DCM.Probability, round(100 * lesion.mean_probability, 2), codes.UCUM.Percent, codes.SCT.Mean),
        (PEAK_PROBABILITY, round(100 * lesion.peak_probability, 2), codes.UCUM.Percent, None),
        (TOTAL_COUNTS, lesion.sum_counts, codes.UCUM.Counts, None),
        (MAXIMUM_COUNTS, lesion.max_counts, codes.UCUM.Counts, None),
    ]
    if lesion.area_mm2 is not None:
        values.insert(0, (codes.SCT.Area, round(lesion.area_mm2, 2), codes.UCUM.SquareMillimeter, None))
    site = _BONE if one.region is None else CodedConcept(one.region.snomed, "SCT", one.region.name.capitalize())
    name = f"Area {lesion.number}" if one.focus is None else f"Focus {one.focus}, {lesion.view}"
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(one.tracking_uid, _marked(name, header)),
        referenced_region=sr.ImageRegion(sr.GraphicTypeValues.POLYLINE, outline_points(one.area, frame), source),
        finding_type=_METASTATIC,
        finding_sites=[sr.FindingSite(site)],
        measurements=[
            sr.Measurement(name=name, value=value, unit=unit, derivation=derivation)
            for name, value, unit, derivation in values
        ],
        algorithm_id=algorithm,
    )


def _report(
    groups: Sequence[Group],
    identity: tuple[str, int, str],
    header: ResultHeader,
    models: Sequence[ModelDescription],
) -> sr.Comprehensive3DSR:
    """A TID 1500 report of measurement groups; `identity` is its name, the number of its series, and its UID."""
    name, series_number, uid = identity
    observer = sr.DeviceObserverIdentifyingAttributes(
        uid=device_uid(models[0].weights_sha256),
        name=MODEL,
        manufacturer_name=MANUFACTURER,
        model_name=short_name(models[0]),
    )
    context = sr.ObservationContext(observer_device_context=sr.ObserverContext(codes.DCM.Device, observer))
    content = sr.MeasurementReport(context, _IMAGING, groups)
    # Comprehensive3DSR copies its content, parses and searches it, 10 ms a lesion: the groups are put in afterwards.
    container = content[0].ContentSequence[-1]
    measured = container["ContentSequence"]
    del container.ContentSequence
    dataset = sr.Comprehensive3DSR(
        evidence=[_evidence(frame, header) for frame in _distinct(header.frames)],
        content=content[0],
        series_instance_uid=header.uid(f"{name} report series"),
        series_number=series_number,
        sop_instance_uid=uid,
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=header.device,
        software_versions=__version__,
        device_serial_number="none",
        is_complete=True,
        series_description=f"{MODEL} {name}. {NOT_FOR_DIAGNOSIS}",
    )
    container.add(measured)
    scheme = Dataset()
    scheme.CodingSchemeDesignator, scheme.CodingSchemeName = SCHEME, f"{MODEL} measurements"
    scheme.CodingSchemeResponsibleOrganization = MANUFACTURER
    dataset.CodingSchemeIdentificationSequence = [scheme]
    add_equipment(dataset, header, *models)
    header.stamp(dataset)
    return dataset


def _distinct(frames: Mapping[str, SourceFrame]) -> list[SourceFrame]:
    """The source frames; two views side by side are one."""
    return list({(frame.sop_instance_uid, frame.frame): frame for frame in frames.values()}.values())


def _evidence(frame: SourceFrame, header: ResultHeader) -> Dataset:
    """What highdicom asks of a source instance."""
    return header.nameless(frame.sop_class_uid, frame.sop_instance_uid, frame.series_instance_uid)


def _marked(text: str, header: ResultHeader) -> str:
    return f"{text}, {PHANTOM_MARK}" if header.phantom else text
