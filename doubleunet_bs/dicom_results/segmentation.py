"""The predicted pixels as a DICOM segmentation (SEG), which viewers lay over the frames it was made from.

There is one a scan, or one for each view where the views are of two series.

A planar view has no place in the patient's coordinates, and the standard wants none in a segmentation of it. Every
viewer that was tried asks for one. So each frame gets a plane of a nominal grid: the orientation that viewers assume
for the source, the pixel spacing where it is known, one plane for each source frame, 1 mm apart. The references to the
source frames say what belongs together. Patient Orientation, which would say where left and right are, is not stated.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import SecondaryCaptureImageStorage

from doubleunet_bs import __version__
from doubleunet_bs.bsi.regions import REGIONS, check_regions
from doubleunet_bs.constants import VIEWS
from doubleunet_bs.dicom_results.result_header import (
    MANUFACTURER,
    NOT_FOR_DIAGNOSIS,
    ResultHeader,
    add_equipment,
    algorithm,
    reference,
)
from doubleunet_bs.dicom_results.source_study import SourceFrame
from doubleunet_bs.inference.model_description import ModelDescription
from doubleunet_bs.inference.predictor import Prediction

SERIES_NUMBERS = 9001, 9005
METASTASIS = "metastasis"
# SNOMED CT, as DICOM writes it.
_ABNORMAL = CodedConcept("49755003", "SCT", "Morphologically Abnormal Structure")
_METASTATIC = CodedConcept("14799000", "SCT", "Neoplasm, metastatic")
_BONE = CodedConcept("272673000", "SCT", "Bone")
_ANATOMICAL = CodedConcept("123037004", "SCT", "Anatomical Structure")
_RED = (230, 30, 30)
_PLANE_DISTANCE_MM = 1.0
UNKNOWN_SPACING_MM = (1.0, 1.0)


def segmentation(
    prediction: Prediction,
    header: ResultHeader,
    pixel_spacing_mm: tuple[float, float] | None,
    regions: Mapping[str, np.ndarray] | None = None,
    skeleton: ModelDescription | None = None,
    part: tuple[int, int] = (1, 1),
) -> Segmentation:
    """A binary segmentation (DICOM PS3.3, A.51) with a frame for each source frame and segment.

    The first segment is "metastasis". Where nothing is predicted its frames are empty, which says that the view was
    segmented and nothing was found. With `regions`, a segment follows for each region that a view shows.

    Args:
        prediction: its masks are mapped to the rows and columns of the source frames, never mirrored.
        header: of the results of this scan.
        pixel_spacing_mm: of the views; None when it is unknown.
        regions: view -> uint8 array of the shape of the view, 0 not bone, 1 to 12 a region of the skeleton.
        skeleton: the model that predicted them.
        part: number of this segmentation, and how many the scan has. `header` has the frames of this one.

    Returns:
        A data set ready to be saved.
    """
    planes = _planes(header.frames)
    sources = [header.frames[views[0]] for views in planes]
    how = f"engine {prediction.engine}; {prediction.mask_rule}"
    segments = [_segment(1, METASTASIS, (_ABNORMAL, _METASTATIC), algorithm(prediction.model, how), _RED, [_BONE])]
    layers = [_layer(planes, header.frames, prediction.masks)]
    number, parts = part
    of_part = f" {number}" if parts > 1 else ""
    name = f"segmentation{of_part}"
    # The number only: which view it is may be in doubt.
    title = f"segmentation, view{of_part} of {parts}" if parts > 1 else "doubleunet_bs segmentation"
    if regions is not None:
        check_regions(regions)
        assert skeleton is not None
        for region in REGIONS:
            masks = {view: (mask == region.number).astype(np.uint8) for view, mask in regions.items()}
            layer = _layer(planes, header.frames, masks)
            if layer.any():
                kind = _ANATOMICAL, CodedConcept(region.snomed, "SCT", region.name.capitalize())
                segments.append(_segment(len(segments) + 1, region.name, kind, algorithm(skeleton), region.colour))
                layers.append(layer)
        name += f" {hashlib.sha256(np.stack(layers).tobytes()).hexdigest()} {skeleton.weights_sha256}"
    known = {frame.frame_of_reference for frame in sources}
    place = known.pop() if len(known) == 1 and "" not in known else header.uid(f"frame of reference{of_part}")
    stand_ins = [_stand_in(frame, plane, pixel_spacing_mm, place, header) for plane, frame in enumerate(sources)]
    views = "both views" if len(header.frames) == 2 else "one view"
    dataset = Segmentation(
        source_images=stand_ins,
        pixel_array=np.stack(layers, axis=-1),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=header.uid(f"segmentation series{of_part}"),
        series_number=SERIES_NUMBERS[number - 1],
        sop_instance_uid=header.uid(name),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=header.device,
        software_versions=__version__,
        device_serial_number="none",
        content_label="METASTASIS",
        # At most 64 characters.
        content_description=f"{'Phantom: p' if header.phantom else 'P'}redicted pixels, {views}; not for diagnosis",
        series_description=f"{title}. {NOT_FOR_DIAGNOSIS}",
        omit_empty_frames=False,
    )
    dataset.ContentCreatorName = None
    add_equipment(dataset, header, prediction.model, *([skeleton] if skeleton else []))
    _refer(dataset, stand_ins, sources)
    organization = header.uid("dimension organization")
    dataset.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for index in dataset.DimensionIndexSequence:
        index.DimensionOrganizationUID = organization
    header.stamp(dataset)
    return dataset


def _planes(frames: Mapping[str, SourceFrame]) -> list[list[str]]:
    """The views in each source frame, in the order of the views: two side by side are in one frame."""
    planes: dict[tuple[str, int | None], list[str]] = {}
    for view in VIEWS:
        if view in frames:
            planes.setdefault((frames[view].sop_instance_uid, frames[view].frame), []).append(view)
    return list(planes.values())


def _layer(
    planes: Sequence[Sequence[str]], frames: Mapping[str, SourceFrame], masks: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Masks of views -> uint8 array of shape (planes, rows, columns) in the pixels of the source frames."""
    return np.stack([
        np.maximum.reduce([map_to_frame(masks[view], frames[view]) for view in views]) for views in planes
    ])  # fmt: skip


def map_to_frame(mask: np.ndarray, frame: SourceFrame) -> np.ndarray:
    """Map the mask of a view to the pixels of the frame it came from.

    Args:
        mask: uint8 array of shape (1024, 256).
        frame: of the same size, of two views side by side, or of a finer matrix.

    Returns:
        uint8 array of `frame.shape`.
    """
    fine = mask.repeat(frame.block, axis=0).repeat(frame.block, axis=1)
    mapped = np.zeros(frame.shape, np.uint8)
    mapped[:, frame.first_column : frame.first_column + fine.shape[1]] = fine
    return mapped


def _segment(
    number: int,
    label: str,
    kind: tuple[CodedConcept, CodedConcept],
    made_by: AlgorithmIdentificationSequence,
    colour: tuple[int, int, int],
    sites: Sequence[CodedConcept] = (),
) -> SegmentDescription:
    """A segment with its category and type."""
    return SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=kind[0],
        segmented_property_type=kind[1],
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=made_by,
        anatomic_regions=list(sites) or None,
        display_color=CIELabColor.from_rgb(*colour),
    )


def _stand_in(
    frame: SourceFrame,
    plane: int,
    pixel_spacing_mm: tuple[float, float] | None,
    frame_of_reference: str,
    header: ResultHeader,
) -> Dataset:
    """A single-frame image on its plane of the nominal grid: highdicom takes no planar image of several frames."""
    image = header.nameless(SecondaryCaptureImageStorage, header.uid(f"plane {plane}"), header.uid("planes"))
    image.FrameOfReferenceUID = frame_of_reference
    image.PositionReferenceIndicator = None
    image.Rows, image.Columns = frame.shape
    image.ImageOrientationPatient = list(frame.orientation)
    # Against the normal, along which highdicom counts frames down: the anterior view becomes the first.
    normal = np.cross(frame.orientation[:3], frame.orientation[3:])
    image.ImagePositionPatient = (-plane * _PLANE_DISTANCE_MM * normal + 0.0).tolist()
    spacing = pixel_spacing_mm or UNKNOWN_SPACING_MM
    image.PixelSpacing = [f"{value / frame.block:.6g}" for value in spacing]
    image.SliceThickness = image.SpacingBetweenSlices = _PLANE_DISTANCE_MM
    return image


def _refer(dataset: Segmentation, stand_ins: Sequence[Dataset], sources: Sequence[SourceFrame]) -> None:
    """Put the true sources into every reference to a stand-in."""
    true = {image.SOPInstanceUID: source for image, source in zip(stand_ins, sources, strict=True)}
    for group in dataset.PerFrameFunctionalGroupsSequence:
        item = group.DerivationImageSequence[0].SourceImageSequence[0]
        # The segments of a plane share one item.
        if item.ReferencedSOPInstanceUID in true:
            item.update(reference(true[item.ReferencedSOPInstanceUID]))
    series: dict[str, dict[str, Dataset]] = {}
    for source in sources:
        instance = reference(dataclasses.replace(source, frame=None))
        series.setdefault(source.series_instance_uid, {})[source.sop_instance_uid] = instance
    items = []
    for uid, instances in series.items():
        item = Dataset()
        item.SeriesInstanceUID, item.ReferencedInstanceSequence = uid, DicomSequence(instances.values())
        items.append(item)
    for keyword, value in (
        ("SourceImageSequence", [reference(source) for source in sources]),
        ("ReferencedSeriesSequence", items),
    ):
        setattr(dataset, keyword, DicomSequence(value))
