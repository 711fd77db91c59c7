"""Where the body is, the window around it, and the way back to the raw views (paper, section 2.3).

Coordinates are (row, column) of a raw view. The paper finds the body with projection profiles, cuts a window of 950 x
256 pixels with the body in its centre and does not scale. How the profiles become a range is decided here:

- Every pixel is clipped at the 90th percentile of its view before it is summed. The body covers 20-45 % of a frame,
  so that this is a level of ordinary bone; an injection site of 19,000 counts weighs no more than a rib.
- Rows: the profiles of both views are added, since both heads look at the same patient on the same table; a leg that
  is dim in one view is held by the other. A row belongs to the body above 6 % of the profile's 75th percentile (a row
  of the trunk or the thighs), and above the noise of the empty rows. The longest run wins, so that a urine bag beyond
  the feet is not taken for a part of the patient.
- Columns: each view has its own range, from the rows of the upper 60 % of the body only: feet and urine bag have no
  say.
"""

import dataclasses
import math

import numpy as np

from doubleunet_bs.constants import CROP_SHAPE, KEPT_ROWS, METASTATIC, NON_METASTATIC
from doubleunet_bs.errors import ScanError
from doubleunet_bs.preparation.brightness import clip_counts, count_values, percentile

# The ends: parts of the body's length, without the outermost rows, of which noise makes the most.
_END = (0.02, 0.13)
_STRIPES = 6
_SMOOTHING = np.ones(7) / 7
LEGS_ABOVE, HEAD_BELOW = 0.8, 0.75

FEET_UP_WARNING = (
    "the body seems to lie with the feet up, two legs at the upper end and none at the lower one: look at the picture, and "
    "export the scan with the head up"
)


def check_head_end(views: list[np.ndarray], first: int, last: int) -> list[str]:
    """Look for legs at the upper end.

    Args:
        views: counts of shape (rows, columns), at least one view, clipped so that no single pixel stands out.
        first, last: rows of a whole body, inclusive; a hundred of them or more.

    Returns:
        No or one warning; it takes every view to give it.
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
    return float(
        np.median([_deepest_gap(stripe.mean(axis=0)) for stripe in np.array_split(rows, _STRIPES) if len(stripe)])
    )


def _deepest_gap(profile: np.ndarray) -> float:
    profile = np.convolve(profile, _SMOOTHING, "same")
    # Height of the lower one of the summits to the left and to the right of each column.
    summits = np.minimum(np.maximum.accumulate(profile), np.maximum.accumulate(profile[::-1])[::-1])
    column = np.argmax(summits - profile)
    return (summits - profile)[column] / summits[column] if summits[column] > 0 else 0.0


def bin_counts(counts: np.ndarray, bin: int) -> np.ndarray:
    """Sum over blocks of bin x bin pixels.

    Args:
        counts: uint16 array of shape (rows, columns); zeros are appended where rows or columns are no multiple of
            `bin`.

    Returns:
        uint32 array, or `counts` itself when `bin` is 1. No sum wraps: 16 x 65,535 is far below 2**32.
    """
    if bin == 1:
        return counts
    return _blocks(counts, bin).sum(axis=(1, 3), dtype=np.uint32)


def bin_labels(labels: np.ndarray, bin: int) -> np.ndarray:
    """A block is metastatic when at least half of its pixels are, else non-metastatic when at least half of its
    pixels are.

    Args:
        labels: uint8 array of shape (rows, columns) of classes.

    Returns:
        uint8 array, or `labels` itself when `bin` is 1.
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
    short = (-rows % bin, -columns % bin)
    if any(short):
        image = np.pad(image, ((0, short[0]), (0, short[1])))
    return image.reshape(image.shape[0] // bin, bin, image.shape[1] // bin, bin)


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


@dataclasses.dataclass(frozen=True, slots=True)
class Placement:
    """Row and column of the raw view under the window's upper left pixel. Negative: the window begins in padding."""

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
    def rows(self) -> int:
        """Height in rows."""
        return self.last_row - self.first_row + 1

    def centred(self) -> Placement:
        """The window with this body in its centre; half a pixel to the upper left where it cannot be exact."""
        return Placement(
            top=(self.first_row + self.last_row + 1 - CROP_SHAPE[0]) // 2,
            left=(self.first_column + self.last_column + 1 - CROP_SHAPE[1]) // 2,
        )


def find_body(
    views: dict[str, np.ndarray], histograms: dict[str, np.ndarray] | None = None
) -> tuple[dict[str, BodyBox], list[str]]:
    """The body range of each view.

    Args:
        views: name -> unsigned counts of shape (rows, columns), all of the same shape; at least one. Leave out a
            missing view.
        histograms: name -> `histogram.count_values` of the view, where they are known already.

    Returns:
        The range by name (the rows are the same for all views), and warnings.

    Raises:
        ScanError: reason "no-body": no run of rows stands out from the rest, for instance in a blank scan.
    """
    if histograms is None:
        histograms = {name: count_values(counts) for name, counts in views.items()}
    clipped = {name: clip_counts(counts, _clip_level(histograms[name])) for name, counts in views.items()}
    profiles = {name: _sum(view, axis=1) for name, view in clipped.items()}
    first, last = _row_range(sum(profiles.values()))
    warnings = []
    rows = len(next(iter(profiles.values())))
    if not USUAL_BODY_ROWS[0] <= last - first + 1 <= USUAL_BODY_ROWS[1]:
        warnings.append(f"the body range of {last - first + 1} rows is unusual (rows {first} to {last})")
    if last - first + 1 > CROP_SHAPE[0]:
        warnings.append(f"the body is longer than the window of {CROP_SHAPE[0]} rows and is cut at both ends")
    if first == 0 or last == rows - 1:
        warnings.append("the body reaches the edge of the scan: it may be cut off, and the knee not at its usual row")
    # Of a part of the body, which may begin at the shoulders or end at the hips, the ends tell nothing.
    if last - first + 1 >= USUAL_BODY_ROWS[0] and first > 0 and last < rows - 1:
        warnings += check_head_end(list(clipped.values()), first, last)
    if len(profiles) > 1:
        own = [_row_range(profile) for profile in profiles.values()]
        if max(abs(a - b) for a, b in zip(*own, strict=True)) > VIEWS_AGREE_WITHIN:
            warnings.append("the views disagree about where the body begins and ends")
    bodies = {}
    for name, view in clipped.items():
        # What lies in a column by chance is known from the rows that hold no body.
        outside = np.r_[profiles[name][: max(0, first - 20)], profiles[name][last + 21 :]]
        background = float(np.median(outside)) / view.shape[1] if len(outside) else 0.0
        upper = view[first : first + max(1, round((last - first + 1) * COLUMN_ROWS))]
        bodies[name] = BodyBox(first, last, *_column_range(upper, background))
    return bodies, warnings


def crop(counts: np.ndarray, placement: Placement, rows: int = CROP_SHAPE[0]) -> np.ndarray:
    """The window of `rows` x 256 pixels at `placement`, padded with zeros where it leaves the view. A new array."""
    frame = np.zeros((rows, CROP_SHAPE[1]), counts.dtype)
    window, source = _overlap(placement, counts.shape, frame.shape)
    frame[window] = counts[source]
    return frame


def crop_histogram(counts: np.ndarray, placement: Placement, numbers: np.ndarray) -> np.ndarray:
    """`histogram.count_values(crop(counts, placement))`, from that of the view: only what is cut off is counted.

    Args:
        counts: uint16 view of shape (rows, columns).
        placement: of the window.
        numbers: `histogram.count_values(counts)`.

    Returns:
        int64 array as long as `numbers`; the values that only the rest of the view has are 0 times in it.
    """
    _, (rows, columns) = _overlap(placement, counts.shape, CROP_SHAPE)
    left = numbers.copy()
    middle = counts[rows]
    for rest in (counts[: rows.start], counts[rows.stop :], middle[:, : columns.start], middle[:, columns.stop :]):
        if rest.size:
            outside = count_values(np.ascontiguousarray(rest))
            left[: len(outside)] -= outside
    # Where the window leaves the view it is padded with zeros.
    left[0] += CROP_SHAPE[0] * CROP_SHAPE[1] - int(left.sum())
    return left


def uncrop(frame: np.ndarray, placement: Placement, shape: tuple[int, int]) -> np.ndarray:
    """The inverse of `crop`: `frame` at its place in zeros of `shape`; the padding is dropped. A new array."""
    view = np.zeros(shape, frame.dtype)
    window, target = _overlap(placement, shape, frame.shape)
    view[target] = frame[window]
    return view


def merge(anterior: np.ndarray, posterior: np.ndarray) -> np.ndarray:
    """Anterior on the left, posterior on the right (paper, section 2.3). A new array."""
    return np.concatenate([anterior, posterior], axis=1)


def map_back(
    image: np.ndarray, placements: dict[str, Placement], raw_shape: tuple[int, int], bin: int = 1
) -> dict[str, np.ndarray]:
    """Lay a prepared image back on the raw views.

    Args:
        image: array of shape (640 // bin, 512 // bin) and any type.
        placements: of "anterior" and "posterior".
        raw_shape: of one view.
        bin: the binning it was prepared with; each pixel becomes a block of bin x bin equal pixels.

    Returns:
        "anterior" and "posterior" -> array of `raw_shape`, zero outside of the window.

    Raises:
        ValueError: an image of another shape.
    """
    expected = (KEPT_ROWS // bin, 2 * CROP_SHAPE[1] // bin)
    if image.shape != expected:
        raise ValueError(f"an image of shape {expected} is laid back, not {image.shape}")
    if bin > 1:
        image = image.repeat(bin, axis=0).repeat(bin, axis=1)
    halves = {"anterior": image[:, : CROP_SHAPE[1]], "posterior": image[:, CROP_SHAPE[1] :]}
    return {name: uncrop(half, placements[name], raw_shape) for name, half in halves.items()}


def _clip_level(numbers: np.ndarray) -> int:
    """The smallest value that at least 90 % of the pixels do not exceed, and at least 1, from their histogram."""
    below = np.cumsum(numbers)
    return max(1, int(np.searchsorted(below, int(below[-1]) * CLIP_PERCENTILE / 100)))


def _row_range(profile: np.ndarray) -> tuple[int, int]:
    smooth = _smooth(profile)
    ordered = np.sort(smooth)
    empty, level = percentile(ordered, 5), percentile(ordered, LEVEL_PERCENTILE)
    # Five standard deviations of the smoothed Poisson noise in rows that hold no body.
    noise = 5 * math.sqrt(empty / SMOOTHING)
    body = smooth > empty + max(ROW_FRACTION * (level - empty), noise)
    first, last = max(_runs(body, BRIDGED_ROWS), key=lambda run: run[1] - run[0], default=(0, -1))
    if last - first + 1 < SMALLEST_BODY_ROWS:
        raise ScanError("no body is found: no run of rows stands out from the background", "no-body")
    return first, last


def _column_range(upper: np.ndarray, background: float) -> tuple[int, int]:
    smooth = _smooth(_sum(upper, axis=0))
    level = percentile(np.sort(smooth), LEVEL_PERCENTILE)
    columns = np.flatnonzero(smooth > max(COLUMN_FRACTION * level, 2 * background * len(upper)))
    if not len(columns):
        raise ScanError("no body is found: no column stands out from the background", "no-body")
    return int(columns[0]), int(columns[-1])


def _sum(view: np.ndarray, axis: int) -> np.ndarray:
    """int64 sums of at most 2**16 counts of 16 bits each, which fit into 32 bits: twice as fast."""
    return view.sum(axis=axis, dtype=np.uint32 if view.dtype.itemsize <= 2 else np.int64).astype(np.int64)


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
    placement: Placement, view: tuple[int, ...], window: tuple[int, ...]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Slices of the window and of the view that cover each other; empty ones when they do not meet."""
    inside, outside = [], []
    for start, size, length in zip((placement.top, placement.left), window, view, strict=True):
        low, high = max(0, -start), min(size, length - start)
        high = max(low, high)
        inside.append(slice(low, high))
        outside.append(slice(low + start, high + start))
    return tuple(inside), tuple(outside)
