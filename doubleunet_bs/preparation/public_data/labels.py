"""The labels of one scan of a public data set: PNG masks, or boxes in Pascal VOC files."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from doubleunet_bs.bsi.regions import check_regions
from doubleunet_bs.constants import METASTATIC, NON_METASTATIC, RAW_SHAPE, VIEWS
from doubleunet_bs.errors import LabelError
from doubleunet_bs.preparation.annotations import Annotation
from doubleunet_bs.preparation.public_data.box_masks import PATHS, Box, masks_of_boxes, rectangles_of_boxes
from doubleunet_bs.preparation.records import UNKNOWN_GROUP, UNOUTLINED
from doubleunet_bs.scans.bone_scan import BoneScan
from doubleunet_bs.scans.labels import read_mask

BOX_CLASSES = {"normal": NON_METASTATIC, "abnormal": METASTATIC}
LARGEST_XML = 1 << 20
COLOURS = (
    (176, 230, 13), (0, 151, 219), (126, 230, 225), (166, 55, 167), (230, 157, 180), (167, 110, 77),
    (121, 0, 24), (56, 65, 184), (230, 218, 0), (230, 114, 35), (12, 187, 62), (230, 182, 22),
)  # fmt: skip
"""Of regions 1 to 12 in the coloured skeletons."""


@dataclasses.dataclass(frozen=True)
class MaskLabels:
    """The masks of one scan: 0 nothing, 1 benign, 2 malignant.

    Attributes:
        files: "anterior" and "posterior" -> its PNG; a view without one has no hot spot.
        abnormal: the same names -> whether the data set calls that picture abnormal, where it says so.
    """

    files: Mapping[str, Path]
    abnormal: Mapping[str, bool]

    def read(self, scan: BoneScan) -> tuple[Annotation, str]:
        """The annotation and the group of the scan.

        Raises:
            LabelError: not such a PNG of 1024 x 256 pixels.
        """
        lesions = {}
        for view, path in self.files.items():
            lesions[view] = read_mask(path, {})
            if lesions[view].shape != RAW_SHAPE:
                raise LabelError(f"{path}: a mask of another size than 1024 x 256", "label-frame")
        return _annotation(lesions, self.abnormal)


@dataclasses.dataclass(frozen=True)
class BoxLabels:
    """The boxes of one scan in Pascal VOC files: "Normal" ones are benign, "Abnormal" ones malignant.

    Attributes:
        files: "anterior" and "posterior" -> its XML; a view without one has no box.
        abnormal: see `MaskLabels`.
        rectangles: the boxes themselves are the masks.
    """

    files: Mapping[str, Path]
    abnormal: Mapping[str, bool]
    rectangles: bool = False

    def read(self, scan: BoneScan) -> tuple[Annotation, str]:
        """The annotation and the group of the scan.

        Raises:
            LabelError: not such an XML, or a box outside of the picture.
        """
        lesions, taken = {}, np.zeros(len(PATHS), int)
        for view, path in self.files.items():
            boxes = read_boxes(path)
            if self.rectangles:
                lesions[view] = rectangles_of_boxes(RAW_SHAPE, boxes)
            else:
                lesions[view], paths = masks_of_boxes(np.minimum(getattr(scan, view), 255).astype(np.uint8), boxes)
                taken += paths
        annotation, group = _annotation(lesions, self.abnormal)
        return dataclasses.replace(annotation, box_paths=() if self.rectangles else tuple(map(int, taken))), group


@dataclasses.dataclass(frozen=True)
class ClassLabels:
    """The class of the patient, and no outline.

    Attributes:
        metastases: whether the patient has any.
    """

    metastases: bool

    def read(self, scan: BoneScan) -> tuple[Annotation, str]:
        """No annotation, and the group of the scan. Metastases that nobody outlined are never trained on as none."""
        if not self.metastases:
            return Annotation({}, False, ()), "negative"
        said = "with metastases that are not outlined: counts in figures by patient, not for training or pixels"
        return Annotation({}, False, (said,)), UNOUTLINED


@dataclasses.dataclass(frozen=True)
class SkeletonLabels:
    """The regions of the skeleton of one scan, and no lesions.

    Attributes:
        files: "anterior" and "posterior" -> its PNG, whose values are the numbers of the regions.
    """

    files: Mapping[str, Path]

    def read(self, scan: BoneScan) -> tuple[Annotation, str]:
        """No annotation of lesions."""
        return Annotation({}, False, ()), UNKNOWN_GROUP

    def regions(self) -> dict[str, np.ndarray]:
        """ "anterior" and "posterior" -> uint8 regions of shape (1024, 256).

        Raises:
            LabelError: not such a PNG, or one whose colours are those of other numbers.
        """
        regions = {}
        for view, path in self.files.items():
            regions[view] = read_mask(path, {str(number): number for number in range(len(COLOURS) + 1)})
            if regions[view].shape != RAW_SHAPE:
                raise LabelError(f"{path}: a mask of another size than 1024 x 256", "label-frame")
            with Image.open(path, formats=("PNG",)) as image:
                palette = np.array(image.getpalette() or [], int).reshape(-1, 3)
            used = [number for number in np.unique(regions[view]) if 0 < number < len(palette)]
            named = [tuple(palette[number]) for number in used]
            if any(
                colour in COLOURS and COLOURS.index(colour) + 1 != number
                for number, colour in zip(used, named, strict=True)
            ):
                raise LabelError(
                    f"{path}: its colours are those of other regions: use the index masks", "region-unknown"
                )
        check_regions(regions)
        return regions


def boxes_remark(taken: Sequence[tuple[int, ...]]) -> list[str]:
    """A sentence on how the boxes of all scans became masks; none without such boxes."""
    counts = np.sum([paths for paths in taken if paths], axis=0) if any(taken) else None
    if counts is None:
        return []
    ways = ", ".join(f"{number:,} by {path}" for path, number in zip(PATHS, counts, strict=True))
    return [f"Masks of {int(np.sum(counts)):,} boxes: {ways}."]


def read_boxes(path: Path) -> list[Box]:
    """Read a Pascal VOC file of a picture of 1024 x 256 pixels.

    Raises:
        LabelError: not such a file, of another size, another name than Normal and Abnormal, or a box outside.
    """
    try:
        if path.stat().st_size > LARGEST_XML:
            raise LabelError(f"{path}: too large for a file of boxes", "label-file")
        root = ElementTree.fromstring(path.read_bytes())
    except (OSError, ElementTree.ParseError, ValueError) as cause:
        raise LabelError(f"{path}: not a readable XML ({type(cause).__name__})", "label-file") from None
    size = [root.findtext(f"size/{side}") for side in ("height", "width")]
    if None not in size and size != list(map(str, RAW_SHAPE)):
        raise LabelError(f"{path}: drawn on {size[0]} x {size[1]} pixels instead of 1024 x 256"[:200], "label-frame")
    boxes = []
    for thing in root.iter("object"):
        number = BOX_CLASSES.get((thing.findtext("name") or "").strip().lower())
        if number is None:
            raise LabelError(f"{path}: a box is neither Normal nor Abnormal", "label-unknown")
        try:
            sides = [int(thing.findtext(f"bndbox/{side}") or "") for side in ("xmin", "ymin", "xmax", "ymax")]
        except ValueError:
            raise LabelError(f"{path}: a box has no whole numbers for its sides", "label-file") from None
        left, top, right, bottom = sides
        if not (0 <= left < right <= RAW_SHAPE[1] and 0 <= top < bottom <= RAW_SHAPE[0]):
            raise LabelError(f"{path}: a box is empty or reaches out of the picture", "label-frame")
        boxes.append(Box(left, top, right, bottom, number))
    return boxes


def _annotation(lesions: dict[str, np.ndarray], abnormal: Mapping[str, bool]) -> tuple[Annotation, str]:
    """The annotation with what is to be said of it, and the group.

    A picture that is called abnormal and has no mask, or a scan with no malignant pixel in its masks, may hold
    metastases that nobody outlined: the group is unknown then.
    """
    metastatic = any((mask == METASTATIC).any() for mask in lesions.values())
    absent = [view for view in VIEWS if view not in lesions]
    unmasked = [view for view in absent if abnormal.get(view)]
    normal = set(abnormal) == set(VIEWS) and not any(abnormal.values())
    group = "positive" if metastatic and not unmasked else "negative" if normal else UNKNOWN_GROUP
    warnings = []
    if metastatic and normal:
        warnings.append("called normal, but malignant pixels are in its mask")
    if unmasked:
        views = " and ".join(unmasked)
        warnings.append(f"the {views} view is called abnormal, but has no mask: used for neither training nor testing")
    elif group == UNKNOWN_GROUP:
        said = "called abnormal" if any(abnormal.values()) else "not called normal in both views"
        warnings.append(f"{said}, but no malignant pixel is in its masks: used for neither training nor testing")
    free = [view for view in absent if view not in unmasked]
    if free:
        warnings.append(f"no mask of the {' and '.join(free)} view: treated as free of hot spots")
    return Annotation(lesions, metastatic, tuple(warnings)), group
