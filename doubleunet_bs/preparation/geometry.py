"""Where the body is, the crop around it, and the way back to the raw views (paper, section 2.3).

Coordinates are (row, column) of a raw view. The paper leaves open how projection profiles become a bounding box. Here:

- Every pixel is clipped at the 90th percentile of its view before it is summed: an injection site weighs no more than
  a rib.
- Rows: the profiles of both views are added. A row belongs to the body above 6 % of the profile's 75th percentile (a
  row of the trunk or the thighs), and above the noise of the empty rows. The longest run of rows is the body.
- Columns: each view has its own first and last one, from the upper 60 % of the body.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from doubleunet_bs.constants import CROP_SHAPE, FEET_UP_WARNING, KEPT_ROWS, METASTATIC, NON_METASTATIC
from doubleunet_bs.errors import ScanError

CLIP_PERCENTILE = 90
LEVEL_PERCENTILE = 75
ROW_FRACTION = 0.06
COLUMN_FRACTION = 0.10
COLUMN_ROWS = 0.6
SMOOTHING = 7
BRIDGED_ROWS = 8
SMALLEST_BODY_ROWS = 100
USUAL_BODY_ROWS = (550, 900)
VIEWS_AGREE_WITHIN = 40

# Ends of the body in which `check_orientation` looks for legs, in parts of its length. The outermost rows are noisy.
_END = (0.02, 0.13)
_STRIPES = 6
LEGS_ABOVE, HEAD_BELOW = 0.8, 0.75


@dataclasses.dataclass(frozen=True, slots=True)
class Placement:
    """Row and column of the raw view under the upper left pixel of the crop. Negative: the crop begins in padding."""

    top: int
    left: int


@dataclasses.dataclass(frozen=True, slots=True)
class BodyBox:
    """First and last row and column of the body in one view, inclusive, in raw pixels."""

    first_row: int
    last_row: int
    first_column: int
    last_column: int

    @property
    def box(self) -> tuple[slice, slice]:
        """The index of the box in an array of the view."""
        return np.s_[self.first_row : self.last_row + 1, self.first_column : self.last_column + 1]

    def centred(self) -> Placement:
        """The crop with this body in its centre, half a pixel to the upper left where it cannot be exact.

        Example:
            >>> BodyBox(first_row=150, last_row=849, first_column=78, last_column=177).centred()
            Placement(top=25, left=0)
        """
        return Placement(
            top=(self.first_row + self.last_row + 1 - CROP_SHAPE[0]) // 2,
            left=(self.first_column + self.last_column + 1 - CROP_SHAPE[1]) // 2,
        )


def find_body(views: Mapping[str, np.ndarray]) -> tuple[dict[str, BodyBox], list[str]]:
    """The body bounding box of each view, with the same rows in all of them, and warnings.

    Args:
        views: name -> uint16 counts of shape (rows, columns), all of the same shape. Leave out a missing view.

    Raises:
        ScanError: reason "no-body": no run of rows stands out from the rest, for instance in a blank scan.
    """
    clipped = {name: np.minimum(counts, _clip_level(counts)) for name, counts in views.items()}
    profiles = {name: view.sum(axis=1, dtype=np.int64) for name, view in clipped.items()}
    first, last = _row_range(np.sum(list(profiles.values()), axis=0))
    warnings = _body_warnings(first, last, list(profiles.values()))
    rows = len(next(iter(profiles.values())))
    # Of a part of the body, which may begin at the shoulders or end at the hips, the ends tell nothing.
    if last - first + 1 >= USUAL_BODY_ROWS[0] and first > 0 and last < rows - 1:
        warnings += check_orientation(list(clipped.values()), first, last)
    boxes = {}
    for name, view in clipped.items():
        # What lies in a column by chance is known from the rows that hold no body.
        outside = np.r_[profiles[name][: max(0, first - 20)], profiles[name][last + 21 :]]
        background = float(np.median(outside)) / view.shape[1] if len(outside) else 0.0
        upper = view[first : first + max(1, round((last - first + 1) * COLUMN_ROWS))]
        boxes[name] = BodyBox(first, last, *_column_range(upper, background))
    return boxes, warnings


def _body_warnings(first: int, last: int, profiles: Sequence[np.ndarray]) -> list[str]:
    warnings = []
    rows = last - first + 1
    if not USUAL_BODY_ROWS[0] <= rows <= USUAL_BODY_ROWS[1]:
        warnings.append(f"the body is {rows} rows long, which is unusual (rows {first} to {last})")
    if rows > CROP_SHAPE[0]:
        warnings.append(f"the body is longer than the crop of {CROP_SHAPE[0]} rows and is cut off at both ends")
    if first == 0 or last == len(profiles[0]) - 1:
        warnings.append("the body reaches the edge of the scan: it may be cut off, and the knee not at its usual row")
    if len(profiles) > 1:
        own = [_row_range(profile) for profile in profiles]
        if max(abs(a - b) for a, b in zip(*own, strict=True)) > VIEWS_AGREE_WITHIN:
            warnings.append("the views disagree about where the body begins and ends")
    return warnings


def check_orientation(views: Sequence[np.ndarray], first: int, last: int) -> list[str]:
    """One warning when every view, clipped so that no pixel stands out, shows legs at the top and none at the bottom.

    `first` and `last` are the rows of a whole body, inclusive; a hundred of them or more.
    """
    begin, end = (max(1, round(part * (last - first + 1))) for part in _END)
    upside_down = [
        _gap(view[first + begin : first + end]) > LEGS_ABOVE
        and _gap(view[last + 1 - end : last + 1 - begin]) < HEAD_BELOW
        for view in views
    ]
    return [FEET_UP_WARNING] if all(upside_down) else []


def _gap(rows: np.ndarray) -> float:
    """0: counts rise to one summit and fall; 1: there are two with nothing between them. The median over stripes."""
    stripes = [stripe for stripe in np.array_split(rows, _STRIPES) if len(stripe)]
    return float(np.median([_deepest_gap(stripe.mean(axis=0)) for stripe in stripes]))


def _deepest_gap(profile: np.ndarray) -> float:
    profile = np.convolve(profile, np.ones(SMOOTHING) / SMOOTHING, "same")
    # Height of the lower one of the summits to the left and to the right of each column.
    summits = np.minimum(np.maximum.accumulate(profile), np.maximum.accumulate(profile[::-1])[::-1])
    column = np.argmax(summits - profile)
    return (summits - profile)[column] / summits[column] if summits[column] > 0 else 0.0


def crop(counts: np.ndarray, placement: Placement, rows: int = CROP_SHAPE[0]) -> np.ndarray:
    """`rows` x 256 pixels at `placement`, padded with zeros where they leave the view. A new array."""
    cropped = np.zeros((rows, CROP_SHAPE[1]), counts.dtype)
    target, source = _overlap(placement, counts.shape, cropped.shape)
    cropped[target] = counts[source]
    return cropped


def uncrop(cropped: np.ndarray, placement: Placement, shape: tuple[int, int]) -> np.ndarray:
    """The inverse of `crop`: its pixels at their place in zeros of `shape`; the padding is dropped. A new array."""
    view = np.zeros(shape, cropped.dtype)
    source, target = _overlap(placement, shape, cropped.shape)
    view[target] = cropped[source]
    return view


def merge(anterior: np.ndarray, posterior: np.ndarray) -> np.ndarray:
    """Anterior on the left, posterior on the right (paper, section 2.3). A new array."""
    return np.concatenate([anterior, posterior], axis=1)


def map_back(
    image: np.ndarray, placements: Mapping[str, Placement], raw_shape: tuple[int, int], bin: int = 1
) -> dict[str, np.ndarray]:
    """Map a prepared image back to the raw pixels of both views.

    Args:
        image: array of shape (640 // bin, 512 // bin) and any type.
        placements, raw_shape: "anterior" and "posterior" -> place of the crop; shape of one view.
        bin: the binning it was prepared with; each pixel becomes a block of bin x bin equal pixels.

    Returns:
        "anterior" and "posterior" -> array of `raw_shape`, zero outside of the crop.

    Raises:
        ValueError: an image of another shape.
    """
    expected = (KEPT_ROWS // bin, 2 * CROP_SHAPE[1] // bin)
    if image.shape != expected:
        raise ValueError(f"an image of shape {image.shape} cannot be mapped back: {expected} is needed")
    if bin > 1:
        image = image.repeat(bin, axis=0).repeat(bin, axis=1)
    halves = {"anterior": image[:, : CROP_SHAPE[1]], "posterior": image[:, CROP_SHAPE[1] :]}
    return {name: uncrop(half, placements[name], raw_shape) for name, half in halves.items()}


def sum_blocks(counts: np.ndarray, bin: int) -> np.ndarray:
    """Sum uint16 counts over blocks of bin x bin pixels: uint32 array, or `counts` itself when `bin` is 1.

    Zeros are appended where rows or columns are no multiple of `bin`.

    Example:
        >>> sum_blocks(np.arange(8, dtype=np.uint16).reshape(2, 4), 2)
        array([[10, 18]], dtype=uint32)
    """
    if bin == 1:
        return counts
    return _blocks(counts, bin).sum(axis=(1, 3), dtype=np.uint32)


def majority_of_blocks(labels: np.ndarray, bin: int) -> np.ndarray:
    """Class of each block of bin x bin pixels: metastatic when half of them are, else non-metastatic when half are.

    `labels` is a uint8 array of shape (rows, columns), returned itself when `bin` is 1.
    """
    if bin == 1:
        return labels
    half = bin * bin / 2
    blocks = _blocks(labels, bin)
    coarse = np.zeros(blocks.shape[::2], np.uint8)
    coarse[(blocks == NON_METASTATIC).sum(axis=(1, 3)) >= half] = NON_METASTATIC
    coarse[(blocks == METASTATIC).sum(axis=(1, 3)) >= half] = METASTATIC
    return coarse


def _blocks(image: np.ndarray, bin: int) -> np.ndarray:
    rows, columns = image.shape
    image = np.pad(image, ((0, -rows % bin), (0, -columns % bin)))
    return image.reshape(image.shape[0] // bin, bin, image.shape[1] // bin, bin)


def _clip_level(counts: np.ndarray) -> int:
    """The smallest value that at least 90 % of the pixels do not exceed, and at least 1."""
    below = np.cumsum(np.bincount(counts.ravel()))
    return max(1, int(np.searchsorted(below, int(below[-1]) * CLIP_PERCENTILE / 100)))


def _row_range(profile: np.ndarray) -> tuple[int, int]:
    smooth = _smooth(profile)
    empty, level = np.percentile(smooth, (5, LEVEL_PERCENTILE))
    # Five standard deviations of the smoothed Poisson noise in rows that hold no body.
    noise = 5 * math.sqrt(empty / SMOOTHING)
    body = smooth > empty + max(ROW_FRACTION * (level - empty), noise)
    first, last = max(_runs(body, BRIDGED_ROWS), key=lambda run: run[1] - run[0], default=(0, -1))
    if last - first + 1 < SMALLEST_BODY_ROWS:
        raise ScanError("no body is found: no run of rows stands out from the background", "no-body")
    return first, last


def _column_range(upper: np.ndarray, background: float) -> tuple[int, int]:
    smooth = _smooth(upper.sum(axis=0, dtype=np.int64))
    level = np.percentile(smooth, LEVEL_PERCENTILE)
    columns = np.flatnonzero(smooth > max(COLUMN_FRACTION * level, 2 * background * len(upper)))
    if not len(columns):
        raise ScanError("no body is found: no column stands out from the background", "no-body")
    return int(columns[0]), int(columns[-1])


def _smooth(profile: np.ndarray) -> np.ndarray:
    """Moving average over SMOOTHING entries; the ends are repeated."""
    half = SMOOTHING // 2
    padded = np.concatenate([[0], profile[:1].repeat(half), profile, profile[-1:].repeat(half)])
    sums = np.cumsum(padded, dtype=np.float64)
    return (sums[SMOOTHING:] - sums[:-SMOOTHING]) / SMOOTHING


def _runs(mask: np.ndarray, bridged: int) -> list[tuple[int, int]]:
    """(first, last) of the runs of true entries; gaps of at most `bridged` entries do not interrupt one."""
    places = np.flatnonzero(mask)
    if not len(places):
        return []
    breaks = np.flatnonzero(np.diff(places) > bridged + 1)
    starts = np.r_[places[0], places[breaks + 1]]
    ends = np.r_[places[breaks], places[-1]]
    return [(int(start), int(end)) for start, end in zip(starts, ends, strict=True)]


def _overlap(
    placement: Placement, view: tuple[int, ...], cropped: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of the crop and of the view that cover each other; empty ones when they do not meet."""
    inside, outside = [], []
    for start, size, length in zip((placement.top, placement.left), cropped, view, strict=True):
        low, high = max(0, -start), min(size, length - start)
        high = max(low, high)
        inside.append(slice(low, high))
        outside.append(slice(low + start, high + start))
    return tuple(inside), tuple(outside)
