"""Which frame is the anterior and which the posterior view, and whether the images agree with that.

The steps are tried in this order, and the first that distinguishes the frames decides, whether they are in one file or
in two:

1. `view-code`: the View Code Sequence (the standard's way; Siemens);
2. `private-view-name`: GE's private data set names, (0011,1012) and (0011,1030);
3. `orientation`: Image Orientation (Patient), which gives the direction of view;
4. `detector-angle`: Start Angle 180 is the detector in front, 0 the one behind;
5. `frame-order`: none of these did. The first frame is taken as anterior, with a warning.

Where a later step says the opposite, the scan carries a warning.
"""

import contextlib
import dataclasses
import functools
import re
from collections.abc import Callable, Sequence

import numpy as np
from pydicom.dataset import Dataset

from doubleunet_bs.constants import CONTRADICTION_WARNING, FRAME_ORDER_WARNING, MIRRORED_WARNING, SAME_WARNING
from doubleunet_bs.dicom_files.header_values import read_items, read_numbers, read_texts
from doubleunet_bs.errors import ScanError

ANTERIOR = "anterior"
POSTERIOR = "posterior"
FRAME_ORDER = "frame-order"
# No true pair of views comes near this correlation.
MIRRORED_ABOVE = 0.25
# Mean squared difference of two views in units of counting noise: 1 for two pictures of the same thing.
SAME_BELOW = 2.0

_ROWS_PER_CELL, _COLUMNS_PER_CELL = 8, 2
_SMOOTHING = np.array([1, 2, 3, 2, 1]) / 9
# How far the middle of the body may be from the middle of the frame, in cells of two columns.
_FARTHEST_AXIS = 24

View = str | None

# CID 26 of the standard, for sequences whose meaning is in another language: SNOMED RT and SNOMED CT.
_CODED_VIEWS = {"R-10206": ANTERIOR, "399321004": ANTERIOR, "R-10214": POSTERIOR, "399001007": POSTERIOR}

# In the names of views ANT and POST stand alone, begin ANTERIOR and POSTERIOR, or are glued to WB.
_ANTERIOR_WORD = re.compile(r"(?:WB|BODY)?ANT(?:ERIOR|ERO)?(?:WB|WHOLEBODY)?")
_POSTERIOR_WORD = re.compile(r"(?:WB|BODY)?POST(?:ERIOR|ERO)?(?:WB|WHOLEBODY)?")
# "Post" is also Latin for "after".
_AFTER = re.compile(
    r"\bPOST[\s_-]*(?:INJ\w*|THERAP\w*|TREATM\w*|TX|RX|OP|OPERATIV\w*|CHEMO\w*|VOID\w*|MICT\w*|SURG\w*)\b"
)
# Lateral in any form, but not the "late" of a late image.
_OTHER_PROJECTION = re.compile(r"OBL|LAT(?!E(?!RAL))|(?<![A-Z])[LR][AP]O(?![A-Z])")


def view_in_text(text: str) -> View:
    """The view that a text in capitals names, such as "RT      ANT" or "WB_POST_E".

    None when it names neither, both, or an oblique or lateral projection.
    """
    if _OTHER_PROJECTION.search(text):
        return None
    # Antero-posterior, the way the paper calls its anterior view (AP), and the reverse.
    if re.search(r"\bANTERO[\s_-]*POST", text):
        return ANTERIOR
    if re.search(r"\bPOSTERO[\s_-]*ANT", text):
        return POSTERIOR
    words = re.split(r"[^A-Z]+", _AFTER.sub(" ", text))
    anterior = any(_ANTERIOR_WORD.fullmatch(word) for word in words)
    posterior = any(_POSTERIOR_WORD.fullmatch(word) for word in words)
    if anterior == posterior:
        return None
    return ANTERIOR if anterior else POSTERIOR


def from_view_code(dataset: Dataset, frames: int) -> tuple[View, ...]:
    """Step 1: the View Code Sequence of each frame's detector, or of the whole file when it has one frame."""
    return tuple(_view_in_codes(read_items(where, "ViewCodeSequence")) for where in _per_frame(dataset, frames))


def from_private_name(dataset: Dataset, frames: int, element: int) -> tuple[View, ...]:
    """Step 2: GE's names of the data set (element 0x12) or of the picture (0x30)."""
    names = _ge_names(dataset, element)
    return tuple(map(view_in_text, names)) if len(names) == frames else (None,) * frames


def from_orientation(dataset: Dataset, frames: int) -> tuple[View, ...]:
    """Step 3: row direction x column direction, which points into the picture: to the back, seen from the front."""
    return tuple(_view_of_axes(read_numbers(where, "ImageOrientationPatient")) for where in _per_frame(dataset, frames))


def from_detector_angle(dataset: Dataset, frames: int) -> tuple[View, ...]:
    """Step 4: the Start Angle of the detector, within 10 degrees of 180 (in front) or 0 (behind)."""
    return tuple(_view_at_angle(where) for where in _per_frame(dataset, frames))


Step = Callable[[Dataset, int], tuple[View, ...]]
_STEPS: tuple[tuple[str, Step], ...] = (
    ("view-code", from_view_code),
    ("private-view-name", functools.partial(from_private_name, element=0x12)),
    ("private-view-name", functools.partial(from_private_name, element=0x30)),
    ("orientation", from_orientation),
    ("detector-angle", from_detector_angle),
)
STEPS = tuple(dict.fromkeys(name for name, _ in _STEPS))
# A camera may write one orientation for both frames, but it does not give one name to two views.
_NAMES = ("view-code", "private-view-name")

Clues = tuple[View, ...]
"""What each of the steps says of one frame, with two entries for the names."""


@dataclasses.dataclass(frozen=True)
class Distinction:
    """Which of two frames is which view.

    Attributes:
        views: of the first and of the second frame.
        step: that decided, one of `STEPS` or `FRAME_ORDER`.
        warnings: no or one line.
    """

    views: tuple[str, str]
    step: str
    warnings: tuple[str, ...] = ()


def clues_of_frames(dataset: Dataset, frames: int) -> tuple[Clues, ...]:
    """The clues of each of the frames in a file."""
    return tuple(zip(*(step(dataset, frames) for _, step in _STEPS), strict=True))


def distinguish(first: Clues, second: Clues) -> Distinction:
    """Decide which of two frames is the anterior view; they may be in one file or in two.

    A step decides when it names both views, or one view and nothing for the other frame.

    Raises:
        ScanError: `ambiguous-pair` when both have the name of one view, and nothing else distinguishes them.
    """
    said = [(name, one, two) for (name, _), one, two in zip(_STEPS, first, second, strict=True)]
    answers: list[tuple[str, str]] = [(name, one or _other(two)) for name, one, two in said if one != two]
    if answers:
        step, view = answers[0]
        against = any(other != view for _, other in answers)
        return Distinction((view, _other(view)), step, (CONTRADICTION_WARNING,) if against else ())
    for name, one, _ in said:
        if name in _NAMES and one:
            raise ScanError(f"there are two {one} views and no {_other(one)} one", "ambiguous-pair")
    return Distinction((ANTERIOR, POSTERIOR), FRAME_ORDER, (FRAME_ORDER_WARNING,))


def view_of_clues(clues: Clues) -> tuple[View, str, tuple[str, ...]]:
    """The view of a frame by itself, the step that decided, and warnings; (None, `FRAME_ORDER`, ()) for none."""
    found = [(view, name) for (name, _), view in zip(_STEPS, clues, strict=True) if view]
    if not found:
        return None, FRAME_ORDER, ()
    return *found[0], (CONTRADICTION_WARNING,) if len({view for view, _ in found}) > 1 else ()


def check_upright(dataset: Dataset) -> None:
    """Refuse an image whose first row is at the feet. An absent orientation passes.

    Raises:
        ScanError: `feet-up` when the column direction of any Image Orientation (Patient) is towards the head,
            `damaged-header` when it cannot be read.
    """
    for where in (dataset, *read_items(dataset, "DetectorInformationSequence")):
        orientation = read_numbers(where, "ImageOrientationPatient")
        if len(orientation) not in (0, 6):
            raise ScanError("has an unreadable Image Orientation (Patient) in its header", "damaged-header")
        if orientation and orientation[5] > 0.5:
            message = "has the feet up according to Image Orientation (Patient): export it head first"
            raise ScanError(message, "feet-up")


def detector_numbers(dataset: Dataset) -> tuple[int | None, int | None]:
    """GE's detector number, (0011,1015), and the Detector Vector of a one-frame file, each None if unknown."""
    head = [float(value) for value in _ge_names(dataset, 0x15) if value.isdecimal()]
    return _one_positive(head), _one_positive(read_numbers(dataset, "DetectorVector"))


def _other(view: View) -> str:
    return POSTERIOR if view == ANTERIOR else ANTERIOR


def _per_frame(dataset: Dataset, frames: int) -> tuple[Dataset, ...]:
    """For each frame the item of the Detector Information Sequence that describes it, else an empty data set."""
    detectors = read_items(dataset, "DetectorInformationSequence")
    if not detectors:
        # Secondary captures have these elements, if at all, at the top: that can only describe one frame.
        return (dataset,) if frames == 1 else (Dataset(),) * frames
    vector = tuple(int(number) for number in read_numbers(dataset, "DetectorVector"))
    same = frames > 1 and len(set(vector)) == 1
    if len(vector) != frames or same or max(vector) > len(detectors) or min(vector) < 1:
        # No usable vector: items in frame order, if there are as many.
        if len(detectors) != frames:
            return (Dataset(),) * frames
        vector = tuple(range(1, frames + 1))
    return tuple(detectors[number - 1] for number in vector)


def _view_in_codes(codes: tuple[Dataset, ...]) -> View:
    found = {
        view_in_text(text) for code in codes for key in ("CodeMeaning", "CodeValue") for text in read_texts(code, key)
    }
    found |= {_CODED_VIEWS.get(text) for code in codes for text in read_texts(code, "CodeValue")}
    found -= {None}
    return found.pop() if len(found) == 1 else None


def _ge_names(dataset: Dataset, element: int) -> tuple[str, ...]:
    """The values of an element of GE's private block GEMS_GENIE_1, or of the usual block where no creator is named."""
    creators = sorted(tag for tag in map(int, dataset.keys()) if 0x00110010 <= tag <= 0x001100FF)
    for tag in creators:
        if read_texts(dataset, tag) == ("GEMS_GENIE_1",):
            return read_texts(dataset, 0x00110000 + ((tag & 0xFF) << 8) + element, keep_empty=True)
    return () if 0x00110010 in creators else read_texts(dataset, 0x00111000 + element, keep_empty=True)


def _one_positive(values: Sequence[float]) -> int | None:
    return int(values[0]) if len(values) == 1 and values[0] > 0 else None


def _view_of_axes(orientation: tuple[float, ...]) -> View:
    if len(orientation) != 6:
        return None
    row, column = orientation[:3], orientation[3:]
    # In DICOM x grows towards the patient's left, y towards the back and z towards the head.
    into_picture = row[2] * column[0] - row[0] * column[2]
    if not 0.5 < abs(into_picture) <= 1.01:
        return None
    return ANTERIOR if into_picture > 0 else POSTERIOR


def _view_at_angle(detector: Dataset) -> View:
    angle: tuple[float, ...] = ()
    # Nothing else depends on it.
    with contextlib.suppress(ScanError):
        angle = read_numbers(detector, "StartAngle")
    if len(angle) != 1:
        return None
    degrees = angle[0] % 360
    if abs(degrees - 180) <= 10:
        return ANTERIOR
    return POSTERIOR if min(degrees, 360 - degrees) <= 10 else None


def check_views(anterior: np.ndarray, posterior: np.ndarray) -> list[str]:
    """Compare two views, uint16 counts of shape (1024, 256): no or one warning; `same-view` when they are identical."""
    if np.array_equal(anterior, posterior):
        raise ScanError("has the same pixels in both views", "same-view")
    correlation = side_correlation(anterior, posterior)
    if correlation <= MIRRORED_ABOVE:
        return []
    front, back = _cells(anterior), _cells(posterior)
    counted = front + back > 0
    noise = np.mean((front - back)[counted] ** 2 / (front + back)[counted])
    return [SAME_WARNING if noise < SAME_BELOW else MIRRORED_WARNING]


def side_correlation(anterior: np.ndarray, posterior: np.ndarray) -> float:
    """The correlation of the left-right differences of two views, each about the middle of its own body.

    -1 from the front and from behind, 1 twice from the same side, 0 when a view is symmetric or blank.
    """
    first, second = (_side_differences(view).ravel() for view in (anterior, posterior))
    # Plain sums: a matrix library would start threads for so little.
    scale = np.sqrt((first * first).sum() * (second * second).sum())
    return float((first * second).sum() / scale) if scale > 0 else 0.0


def _cells(view: np.ndarray) -> np.ndarray:
    """Counts summed over small blocks, float64."""
    # One axis after the other, the longer one first: NumPy takes twenty times as long for both at once.
    rows = view.reshape(view.shape[0] // _ROWS_PER_CELL, _ROWS_PER_CELL, -1).sum(axis=1, dtype=np.uint32)
    return sum(rows[:, start::_COLUMNS_PER_CELL] for start in range(_COLUMNS_PER_CELL)).astype(np.float64)


def _side_differences(view: np.ndarray) -> np.ndarray:
    """Left minus mirrored right on a coarse grid, the middle of the body in the middle column; zero mean."""
    # The square root makes counting noise equal everywhere; the hottest spots are cut so that none decides alone.
    image = np.sqrt(_cells(view))
    columns = image.shape[1]
    padded = np.pad(image, ((0, 0), (2, 2)))
    image = sum(weight * padded[:, start : start + columns] for start, weight in enumerate(_SMOOTHING))
    image = np.minimum(image, np.percentile(image, 99.5))
    # Room on both sides: moving the body must not wrap it around.
    image = np.pad(image, ((0, 0), (_FARTHEST_AXIS, _FARTHEST_AXIS)))
    mirrored = image[:, ::-1]
    # The agreement at each shift, all at once; the padding keeps the ends apart.
    spectrum = (np.fft.rfft(image, axis=1) * np.fft.rfft(mirrored, axis=1).conj()).sum(axis=0)
    agreement = np.fft.irfft(spectrum, image.shape[1])
    shift = max(range(-_FARTHEST_AXIS, _FARTHEST_AXIS + 1), key=lambda shift: agreement[shift])
    differences = image - np.roll(mirrored, shift, axis=1)
    centred = np.roll(differences, -round(shift / 2), axis=1)
    return centred - centred.mean()
