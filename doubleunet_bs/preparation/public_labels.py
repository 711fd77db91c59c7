"""The labels of one scan of a public data set: PNG masks, boxes in Pascal VOC files, skeletons, or the class alone."""

import dataclasses
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import cv2
import numpy as np
from PIL import Image

from doubleunet_bs.bsi.regions import check_regions
from doubleunet_bs.constants import METASTATIC, NON_METASTATIC, RAW_SHAPE, VIEWS
from doubleunet_bs.errors import LabelError
from doubleunet_bs.preparation.annotations import Annotation
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
ELLIPSE = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
MOST_COVERED, MOST_BORDER = 0.85, 0.65
"""Parts of a box and of its border; a mask that has more of one has not found the hot spot."""
SIGMA, PERCENTILE = 1.5, 75
PATHS = ("Otsu's threshold", "75th percentile", "ellipse")
"""How the mask of a box came about; the first that gives one holds."""
# The letters of a folder's name. What says neither is refused: "metastasis-free" is no metastasis.
_METASTASES = "(bone|osea)?(metastas[ei]s|metastatic[oa]?)(osea|oseas)?"
_WITH = re.compile(f"(with|con)?{_METASTASES}|positiv[eo]")
_WITHOUT = re.compile(f"(no|non|not|without|sin){_METASTASES}|normal|negativ[eo]")


@dataclasses.dataclass(frozen=True)
class PublicLabels:
    """The labels of one scan: what they are, and where they lie.

    Attributes:
        kind: one of the functions below, from `masks` to `patient_with_metastases`.
        files: "anterior" and "posterior" -> its file; a view without one has no hot spot.
        abnormal: the same names -> whether the data set calls that picture abnormal, where it says so.
    """

    kind: Callable[..., tuple[Annotation, str, dict[str, np.ndarray] | None]]
    files: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    abnormal: Mapping[str, bool] = dataclasses.field(default_factory=dict)

    def read(self, scan: BoneScan) -> tuple[Annotation, str, dict[str, np.ndarray] | None]:
        """The annotation, the group, and the regions of the skeleton, uint8 of shape (1024, 256) by view, or None.

        Raises:
            LabelError: a file that is not what its data set promises.
        """
        return self.kind(self, scan)


def masks(labels: PublicLabels, scan: BoneScan) -> tuple[Annotation, str, None]:
    """PNG masks: 0 nothing, 1 benign, 2 malignant."""
    lesions = {view: _read_mask(path, {}) for view, path in labels.files.items()}
    return *_annotation(lesions, labels.abnormal), None


def boxes_as_masks(labels: PublicLabels, scan: BoneScan) -> tuple[Annotation, str, None]:
    """Boxes, "Normal" ones benign and "Abnormal" ones malignant: the hot spots in them."""
    lesions, taken = {}, np.zeros(len(PATHS), int)
    for view, path in labels.files.items():
        grey = np.minimum(getattr(scan, view), 255).astype(np.uint8)
        lesions[view], paths = masks_of_boxes(grey, read_boxes(path))
        taken += paths
    annotation, group = _annotation(lesions, labels.abnormal)
    return dataclasses.replace(annotation, box_paths=tuple(map(int, taken))), group, None


def boxes_as_rectangles(labels: PublicLabels, scan: BoneScan) -> tuple[Annotation, str, None]:
    """The boxes themselves; malignant holds over benign."""
    lesions = {view: rectangles_of_boxes(RAW_SHAPE, read_boxes(path)) for view, path in labels.files.items()}
    return *_annotation(lesions, labels.abnormal), None


def skeleton(labels: PublicLabels, scan: BoneScan) -> tuple[Annotation, str, dict[str, np.ndarray]]:
    """Index masks of the regions, and no lesions. Those whose colours are those of other numbers are refused."""
    regions = {}
    for view, path in labels.files.items():
        regions[view] = _read_mask(path, {str(number): number for number in range(len(COLOURS) + 1)})
        with Image.open(path, formats=("PNG",)) as image:
            palette = np.array(image.getpalette() or [], int).reshape(-1, 3)
        for number in np.unique(regions[view]):
            colour = tuple(palette[number]) if 0 < number < len(palette) else None
            if colour in COLOURS and COLOURS.index(colour) + 1 != number:
                message = f"{path}: its colours are those of other regions: use the index masks"
                raise LabelError(message, "region-unknown")
    check_regions(regions)
    return Annotation({}, False, ()), UNKNOWN_GROUP, regions


def normal_patient(labels: PublicLabels, scan: BoneScan) -> tuple[Annotation, str, None]:
    """A patient without metastases."""
    return Annotation({}, False, ()), "negative", None


def patient_with_metastases(labels: PublicLabels, scan: BoneScan) -> tuple[Annotation, str, None]:
    """Metastases that nobody outlined are never trained on as none."""
    said = "with metastases that are not outlined: counts in figures by patient, not for training or pixels"
    return Annotation({}, False, (said,)), UNOUTLINED, None


def has_metastases(name: str) -> bool | None:
    """What the name of a folder of patients says; None: neither."""
    plain = unicodedata.normalize("NFKD", name).lower()
    letters = "".join(letter for letter in plain if letter.isascii() and letter.isalpha())
    return True if _WITH.fullmatch(letters) else False if _WITHOUT.fullmatch(letters) else None


def _read_mask(path: Path, classes: Mapping[str, int]) -> np.ndarray:
    mask = read_mask(path, classes)
    if mask.shape != RAW_SHAPE:
        raise LabelError(f"{path}: a mask of another size than 1024 x 256", "label-frame")
    return mask


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
    if free := [view for view in absent if view not in unmasked]:
        warnings.append(f"no mask of the {' and '.join(free)} view: treated as free of hot spots")
    return Annotation(lesions, metastatic, tuple(warnings)), group


class Box(NamedTuple):
    """A box: columns `left` to `right` and rows `top` to `bottom`, the last ones not in it, and its class, 1 or 2."""

    left: int
    top: int
    right: int
    bottom: int
    number: int

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


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


def rectangles_of_boxes(shape: tuple[int, int], boxes: Sequence[Box]) -> np.ndarray:
    """The boxes themselves as a uint8 mask of classes; malignant holds over benign."""
    mask = np.zeros(shape, np.uint8)
    for box in boxes:
        mask[box.place] = np.maximum(mask[box.place], box.number)
    return mask


def masks_of_boxes(grey: np.ndarray, boxes: Sequence[Box]) -> tuple[np.ndarray, list[int]]:
    """The hot spot in each box by the rule that was published with the masks for BS-80K.

    Args:
        grey: uint8 picture of one view.
        boxes: within the picture, none empty. Where two overlap, a pixel goes to the box whose centre is nearer.

    Returns:
        uint8 mask of classes of the shape of `grey`, and how many boxes took each of `PATHS`.
    """
    nearest = np.full(grey.shape, np.inf)
    mask = np.zeros(grey.shape, np.uint8)
    taken = [0] * len(PATHS)
    for box in boxes:
        found, path = hot_spot(grey[box.place])
        taken[path] += 1
        rows, columns = np.mgrid[box.place]
        distance = np.hypot(rows - (box.top + box.bottom - 1) / 2, columns - (box.left + box.right - 1) / 2)
        nearer = found & (distance < nearest[box.place])
        nearest[box.place][nearer] = distance[nearer]
        mask[box.place][nearer] = box.number
    return mask, taken


def hot_spot(grey: np.ndarray) -> tuple[np.ndarray, int]:
    """The one hot spot inside a box of uint8 pixels: a bool mask, one component, and the number of its path."""
    _, bright = cv2.threshold(np.ascontiguousarray(grey), 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    bright = cv2.morphologyEx(bright, cv2.MORPH_CLOSE, ELLIPSE, iterations=2)
    found = _largest(cv2.morphologyEx(bright, cv2.MORPH_OPEN, ELLIPSE))
    border = np.concatenate([found[0], found[-1], found[1:-1, 0], found[1:-1, -1]])
    if found.any() and found.mean() <= MOST_COVERED and border.mean() <= MOST_BORDER:
        return found, 0
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), SIGMA)
    if smooth.min() < smooth.max():
        kept = _fill_holes(_largest((smooth >= np.percentile(smooth, PERCENTILE)).astype(np.uint8)))
        return cv2.morphologyEx(kept.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)) > 0, 1
    # Every pixel is the peak: an ellipse in the middle, half as wide and high as the box.
    rows, columns = np.mgrid[: grey.shape[0], : grey.shape[1]]
    top, left = (side // 2 for side in grey.shape)
    height, width = (max(side / 4, 0.5) for side in grey.shape)
    return ((rows - top) / height) ** 2 + ((columns - left) / width) ** 2 <= 1, 2


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest component, corners connect; nothing of nothing."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if len(stats) == 1:
        return np.zeros(mask.shape, bool)
    return labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))


def _fill_holes(mask: np.ndarray) -> np.ndarray:
    outside = np.pad((~mask).astype(np.uint8), 1, constant_values=1)
    _, labels = cv2.connectedComponents(outside, connectivity=4)
    return (labels != labels[0, 0])[1:-1, 1:-1]


def boxes_remark(taken: Sequence[tuple[int, ...]]) -> list[str]:
    """A sentence on how the boxes of all scans became masks; none without such boxes."""
    if not any(taken):
        return []
    counts = np.sum([paths for paths in taken if paths], axis=0)
    ways = ", ".join(f"{number:,} by {path}" for path, number in zip(PATHS, counts, strict=True))
    return [f"Masks of {int(np.sum(counts)):,} boxes: {ways}."]
