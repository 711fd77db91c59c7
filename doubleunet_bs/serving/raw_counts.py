"""The endpoint `raw_counts`: raw counts in, a mask on the raw views out, all of it inside the graph.

The same steps as `preparation.prepare_scan`, the network, and `PreparedCase.map_back`, for callers without the package,
for many scans at a time. A scan that cannot be prepared gets an empty mask and a `status` that says why. The other
scans of its batch get the mask, status, gains and body that they get alone, and probabilities equal to within 1e-5.

Every number is computed in the type and the order of the NumPy code in `preparation.geometry` and
`preparation.brightness`, so that both agree to the last bit; a property test compares them. Hence two rules:

- Sums of counts are int32 (at most 1024 x 65,535 x 7), exact in any order.
- Divisions are `divide_no_nan`: TensorFlow's graph optimiser replaces a plain division by a constant with a
  multiplication by its rounded reciprocal, which differs in the last bit.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from doubleunet_bs.constants import CROP_SHAPE, KEPT_ROWS, RAW_SHAPE
from doubleunet_bs.inference.engines import BODY, GAINS, RAW_INPUT, STATUS
from doubleunet_bs.preparation.brightness import WHITE
from doubleunet_bs.preparation.geometry import (
    BRIDGED_ROWS,
    CLIP_PERCENTILE,
    COLUMN_FRACTION,
    COLUMN_ROWS,
    LEVEL_PERCENTILE,
    ROW_FRACTION,
    SMALLEST_BODY_ROWS,
    SMOOTHING,
)
from doubleunet_bs.preparation.settings import BRIGHTNESS_MARGIN, BRIGHTNESS_RANGE, PreparationSettings

COUNT_VALUES = 65536
ROWS, COLUMNS = RAW_SHAPE
_VALUES = np.arange(1.0, COUNT_VALUES)


@dataclasses.dataclass(frozen=True)
class Bodies:
    """Where the bodies of n scans are.

    Attributes:
        found: (n,) bool: a body stands out in every view that is not missing, and at least one is not.
        boxes: (n, 2, 4) int32 body bounding boxes: first and last row, first and last column of the anterior and the
            posterior view, inclusive; -1 in a missing view and in a scan without a body.
        tops: (n,) int32: raw row of the crop's first row; 0 in a scan without a body.
        lefts: (n, 2) int32: raw column of the crop's first column; 0 where there is no body or no view.
    """

    found: tf.Tensor
    boxes: tf.Tensor
    tops: tf.Tensor
    lefts: tf.Tensor


@dataclasses.dataclass(frozen=True)
class PreparedCounts:
    """n scans as the network sees them.

    Attributes:
        grey: (n, rows, columns) uint8 prepared images; black where `status` is not 0.
        gains: (n, 2) float32.
        bodies: where the bodies are.
        present: (n, 2) bool: the view has a count.
        status: (n,) uint8, an index into `endpoints.STATUS_REASONS`.
    """

    grey: tf.Tensor
    gains: tf.Tensor
    bodies: Bodies
    present: tf.Tensor
    status: tf.Tensor


def counts_signature() -> tf.TensorSpec:
    """The input of the endpoint, for any number of scans."""
    return tf.TensorSpec((None, 2, *RAW_SHAPE), tf.uint16, name=RAW_INPUT)


def prepare_counts(counts: tf.Tensor, settings: PreparationSettings) -> PreparedCounts:
    """Raw counts -> what goes into the network.

    Args:
        counts: (n, 2, 1024, 256) uint16, the raw anterior and posterior views. A view that is all zero is missing.
        settings: what the model's training scans were prepared with.
    """
    counts = tf.cast(counts, tf.int32)
    present = tf.reduce_any(counts > 0, axis=(2, 3))
    bodies = find_bodies(counts, present)
    crops = sum_blocks(crop(counts, bodies), settings.bin, settings.source == "pictures")
    gains, bright = find_gains(crops, present, settings.brightness)
    status = tf.where(bodies.found, tf.where(bright, 0, 3), tf.where(tf.reduce_any(present, axis=1), 2, 1))
    good = status == 0
    gains = tf.where(good[:, None], gains, 1.0)
    kept = crops[:, :, : KEPT_ROWS // settings.bin]
    grey = merge(to_grey(kept, gains))
    return PreparedCounts(
        grey=tf.where(good[:, None, None], grey, tf.zeros((), tf.uint8)),
        gains=gains,
        bodies=bodies,
        present=present,
        status=tf.cast(status, tf.uint8),
    )


def raw_counts_function(
    segment: Callable[[tf.Tensor], dict[str, tf.Tensor]], settings: PreparationSettings
) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """The endpoint's function.

    Args:
        segment: from `keras_model.segmentation_function`.
        settings: what the model's training scans were prepared with.

    Returns:
        A function of (n, 2, 1024, 256) uint16 counts, the raw anterior and posterior views. It returns

        - "mask", (n, 2, 1024, 256) uint8: 1 where metastatic is the most probable class, 0 elsewhere, outside the
          crop, and in a missing view.
        - "metastatic_probability", float32 of the same shape, between 0 and 1; 0 where nothing was computed.
          A model of the skeleton answers with the numbers of regions, and "region_probability" instead.
        - "gains", (n, 2) float32: of the anterior and the posterior view.
        - "body", (n, 2, 4) int32: first and last row, first and last column of the body in each view, inclusive; -1 in
          a missing view.
        - "status", (n,) uint8: 0 done; 1 both views are empty; 2 no body is found; 3 too few counts. Where it is not 0,
          mask and probability are 0 everywhere and gains 1, which means nothing for the patient.
    """

    def segment_counts(counts):
        prepared = prepare_counts(counts, settings)
        answer = segment(prepared.grey)
        seen = (prepared.present & (prepared.status == 0)[:, None])[..., None, None]
        return {
            **{
                name: tf.where(
                    seen,
                    map_back(answer[name], prepared.bodies, settings.bin),
                    tf.zeros((), answer[name].dtype),
                )
                for name in answer
            },
            GAINS: prepared.gains,
            BODY: prepared.bodies.boxes,
            STATUS: prepared.status,
        }

    return segment_counts


def count_values(images: tf.Tensor) -> tf.Tensor:
    """(..., pixels) int32 counts between 0 and 65,535 -> (..., 65,536) int32: how many pixels have each value."""
    flat = tf.reshape(images, (-1, images.shape[-1]))
    numbers = tf.raw_ops.DenseBincount(
        input=flat, size=COUNT_VALUES, weights=tf.zeros((0,), tf.int32), binary_output=False
    )
    return tf.reshape(numbers, tf.concat([tf.shape(images)[:-1], [COUNT_VALUES]], axis=0))


def find_bodies(counts: tf.Tensor, present: tf.Tensor) -> Bodies:
    """The body bounding box of each view and the crop around it.

    Args:
        counts: (n, 2, 1024, 256) int32, anterior and posterior.
        present: (n, 2) bool; a missing view is all zero.
    """
    clipped = tf.minimum(counts, _clip_levels(counts)[..., None, None])
    profiles = tf.reduce_sum(clipped, axis=3)
    joint = tf.reduce_sum(profiles, axis=1, keepdims=True)
    first, last, found = _row_ranges(tf.concat([joint, profiles], axis=1))
    # Each view is checked by itself as well: a blank view beside a good one is not a scan.
    found = found[:, 0] & tf.reduce_all(found[:, 1:] | ~present, axis=1)
    first, last = (tf.where(found, bound[:, 0], 0) for bound in (first, last))
    left, right, columns_found = _column_ranges(clipped, profiles, first, last)
    found &= tf.reduce_all(columns_found | ~present, axis=1) & tf.reduce_any(present, axis=1)

    seen = present & found[:, None]
    boxes = tf.stack([*(tf.repeat(bound[:, None], 2, axis=1) for bound in (first, last)), left, right], axis=2)
    return Bodies(
        found=found,
        boxes=tf.where(seen[..., None], boxes, -1),
        tops=tf.where(found, (first + last + 1 - CROP_SHAPE[0]) // 2, 0),
        lefts=tf.where(seen, (left + right + 1 - CROP_SHAPE[1]) // 2, 0),
    )


def crop(counts: tf.Tensor, bodies: Bodies) -> tf.Tensor:
    """(n, 2, 1024, 256) -> (n, 2, 950, 256) of the same type: the crops, padded with zeros."""
    rows = bodies.tops[:, None, None] + tf.range(CROP_SHAPE[0])
    columns = bodies.lefts[..., None] + tf.range(CROP_SHAPE[1])
    return _gather_pixels(counts, rows, columns)


def sum_blocks(crops: tf.Tensor, bin: int, pictures: bool = False) -> tf.Tensor:
    """Sums over blocks of bin x bin pixels of (n, 2, rows, columns) int32 counts, at most 65,535; rows are padded.

    Of a scan of pictures with a larger sum the means of the blocks.
    """
    if bin == 1:
        return crops
    crops = tf.pad(crops, ((0, 0), (0, 0), (0, -crops.shape[2] % bin), (0, 0)))
    rows, columns = crops.shape[2] // bin, crops.shape[3] // bin
    sums = tf.reduce_sum(tf.reshape(crops, (-1, 2, rows, bin, columns, bin)), axis=(3, 5))
    if pictures:
        overflow = tf.reduce_max(sums, axis=(1, 2, 3), keepdims=True) >= COUNT_VALUES
        sums = tf.where(overflow, sums // bin**2, sums)
    return tf.minimum(sums, COUNT_VALUES - 1)


def merge(views: tf.Tensor) -> tf.Tensor:
    """(n, 2, rows, columns) -> (n, rows, 2 x columns), anterior on the left."""
    return tf.concat([views[:, 0], views[:, 1]], axis=2)


def map_back(images: tf.Tensor, bodies: Bodies, bin: int) -> tf.Tensor:
    """Prepared images (n, 640 / bin, 512 / bin) -> (n, 2, 1024, 256) of the same type, zero outside the crop."""
    columns = images.shape[2] // 2
    views = tf.stack([images[..., :columns], images[..., columns:]], axis=1)
    # Floor division maps -1 to -1: what lies before the crop stays outside.
    rows = (tf.range(ROWS) - bodies.tops[:, None, None]) // bin
    columns = (tf.range(COLUMNS) - bodies.lefts[..., None]) // bin
    assert views.shape[2] == KEPT_ROWS // bin
    return _gather_pixels(views, rows, columns)


def _clip_levels(counts: tf.Tensor) -> tf.Tensor:
    """(n, 2): the smallest value, at least 1, that 90 % of the pixels or more do not exceed."""
    numbers = tf.cumsum(count_values(tf.reshape(counts, (-1, 2, ROWS * COLUMNS))), axis=2)
    needed = int(np.ceil(ROWS * COLUMNS * CLIP_PERCENTILE / 100))
    return tf.maximum(1, tf.reduce_sum(tf.cast(numbers < needed, tf.int32), axis=2))


def _row_ranges(profiles: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """First and last row and whether there is a body, each (n, k), of (n, k, 1024) int32 row sums."""
    sums = _running_sums(profiles)
    smooth, ordered = _average(sums), _average(tf.sort(sums))
    empty, level = _percentile(ordered, 5), _percentile(ordered, LEVEL_PERCENTILE)
    noise = 5 * tf.sqrt(_average(empty))
    limit = empty + tf.maximum(ROW_FRACTION * (level - empty), noise)
    first, last = _longest_run(smooth > limit[..., None], BRIDGED_ROWS)
    return first, last, last - first + 1 >= SMALLEST_BODY_ROWS


def _column_ranges(
    clipped: tf.Tensor, profiles: tf.Tensor, first: tf.Tensor, last: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """First and last column and whether there is one, each (n, 2), given the rows of the body, each (n,)."""
    rows = tf.range(ROWS)
    first, last = first[:, None], last[:, None]
    outside = (rows < first - 20) | (rows >= last + 21)
    background = _average(_median(profiles, outside[:, None]), COLUMNS)
    length = tf.maximum(1, tf.cast(tf.round(tf.cast(last - first + 1, tf.float64) * COLUMN_ROWS), tf.int32))
    upper = (rows >= first) & (rows < first + length)
    sums = _running_sums(tf.reduce_sum(tf.where(upper[:, None, :, None], clipped, 0), axis=2))
    level = _percentile(_average(tf.sort(sums)), LEVEL_PERCENTILE)
    limit = tf.maximum(COLUMN_FRACTION * level, 2 * background * tf.cast(length, tf.float64))
    body = _average(sums) > limit[..., None]
    columns = tf.range(COLUMNS)
    left = tf.reduce_min(tf.where(body, columns, COLUMNS), axis=2)
    right = tf.reduce_max(tf.where(body, columns, -1), axis=2)
    return left, right, right >= 0


def _running_sums(profiles: tf.Tensor) -> tf.Tensor:
    """Sums over SMOOTHING neighbours of the last axis; the ends are repeated."""
    half, length = SMOOTHING // 2, profiles.shape[-1]
    padded = tf.concat([*[profiles[..., :1]] * half, profiles, *[profiles[..., -1:]] * half], axis=-1)
    return tf.add_n([padded[..., start : start + length] for start in range(SMOOTHING)])


def _average(sums: tf.Tensor, number: int = SMOOTHING) -> tf.Tensor:
    return tf.math.divide_no_nan(tf.cast(sums, tf.float64), tf.constant(number, tf.float64))


def _percentile(ordered: tf.Tensor, percentile: float) -> tf.Tensor:
    """`numpy.percentile`, method "linear", over the last axis of ascending float64 values."""
    place = (ordered.shape[-1] - 1) * (percentile / 100)
    below = int(place)
    part = place - below
    low, high = ordered[..., below], ordered[..., below + 1]
    return low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part)


def _median(values: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    """`numpy.median` of the chosen int32 values of the last axis, float64; 0 where none is chosen."""
    ordered = tf.sort(tf.where(chosen, values, tf.int32.max))
    number = tf.broadcast_to(tf.reduce_sum(tf.cast(chosen, tf.int32), axis=-1), tf.shape(ordered)[:-1])
    places = tf.stack([tf.maximum(number - 1, 0) // 2, tf.minimum(number // 2, values.shape[-1] - 1)], axis=-1)
    middle = tf.cast(tf.gather(ordered, places, batch_dims=2), tf.float64)
    return tf.where(number > 0, (middle[..., 0] + middle[..., 1]) * 0.5, 0.0)


def _longest_run(mask: tf.Tensor, bridged: int) -> tuple[tf.Tensor, tf.Tensor]:
    """First and last of the longest run of true entries of the last axis, the first of equal ones; (0, -1) for none.

    Gaps of at most `bridged` entries do not interrupt a run.
    """
    length = mask.shape[-1]
    places = tf.range(length)
    seen = _running_maximum(tf.where(mask, places, -length))
    before = tf.concat([tf.fill(tf.shape(seen[..., :1]), -length), seen[..., :-1]], axis=-1)
    starts = _running_maximum(tf.where(mask & (places - before > bridged + 1), places, -1))
    # One number per place: first by the length of the run up to there, then the earlier place.
    rank = tf.where(mask, (places - starts) * length + (length - 1 - places), -1)
    best = tf.reduce_max(rank, axis=-1)
    last = length - 1 - best % length
    return tf.where(best < 0, 0, last - best // length), tf.where(best < 0, -1, last)


def _running_maximum(values: tf.Tensor) -> tf.Tensor:
    """Largest entry up to each place of the last axis."""
    length, step = values.shape[-1], 1
    while step < length:
        values = tf.maximum(values, tf.concat([values[..., :step], values[..., :-step]], axis=-1))
        step *= 2
    return values


def _gather_pixels(views: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Pixels of (n, 2, height, width) views at rows (n, 1 or 2, r), columns (n, 2, c): (n, 2, r, c); zero outside."""
    height, width = views.shape[2:]
    inside = ((rows >= 0) & (rows < height))[..., None] & ((columns >= 0) & (columns < width))[..., None, :]
    places = tf.clip_by_value(rows, 0, height - 1)[..., None] * width
    places = places + tf.clip_by_value(columns, 0, width - 1)[..., None, :]
    pixels = tf.gather(tf.reshape(views, (-1, 2, height * width)), places, batch_dims=2)
    return tf.where(inside, pixels, tf.zeros((), views.dtype))


def find_gains(crops: tf.Tensor, present: tf.Tensor, brightness: str) -> tuple[tf.Tensor, tf.Tensor]:
    """The gains that bring the mean intensity of each scan, or of each view, into the open range (7, 14).

    Args:
        crops: (n, 2, rows, columns) int32 counts, at most 65,535: the crops of 950 rows after binning.
        present: (n, 2) bool; a missing view does not count.
        brightness: "per_scan" or "per_view", see `preparation.settings`.

    Returns:
        Gains, (n, 2) float32; a missing view gets the gain of the other one. And (n,) bool: whether there are enough
        counts; where not, the gains are 1.
    """
    pixels = crops.shape[2] * crops.shape[3]
    numbers = count_values(tf.reshape(crops, (-1, 2, pixels)))[..., 1:]
    sizes = tf.where(present, pixels, 0)
    if brightness == "per_scan":
        numbers = tf.reduce_sum(tf.where(present[..., None], numbers, 0), axis=1, keepdims=True)
        gains, enough = _solve(numbers, tf.reduce_sum(sizes, axis=1, keepdims=True))
        return tf.repeat(gains, 2, axis=1), enough[:, 0]
    gains, enough = _solve(numbers, sizes)
    enough = tf.reduce_all(enough | ~present, axis=1)
    gains = tf.where(enough[:, None], gains, 1.0)
    return tf.where(present, gains, gains[:, ::-1]), enough


def to_grey(counts: tf.Tensor, gains: tf.Tensor) -> tf.Tensor:
    """Counts (n, 2, rows, columns) int32 and gains (n, 2) float32 -> uint8: rint(min(gain x counts, 255))."""
    grey = tf.cast(counts, tf.float32) * gains[..., None, None]
    return tf.cast(tf.math.rint(tf.minimum(grey, tf.constant(WHITE, tf.float32))), tf.uint8)


def _solve(numbers: tf.Tensor, sizes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Gains and whether there are enough counts, each (n, k).

    Args:
        numbers: (n, k, 65,535) int32: pixels with 1, 2, ... counts.
        sizes: (n, k) int32: number of all pixels.
    """
    low, high = BRIGHTNESS_RANGE
    values = tf.constant(_VALUES)
    numbers, sizes = tf.cast(numbers, tf.float64), tf.cast(sizes, tf.float64)
    white = tf.constant(WHITE, tf.float64)
    mean = tf.math.divide_no_nan(tf.reduce_sum(tf.minimum(values, white) * numbers, axis=-1), sizes)
    target = tf.where(
        mean <= low, tf.constant(low + BRIGHTNESS_MARGIN, tf.float64), tf.constant(high - BRIGHTNESS_MARGIN, tf.float64)
    )
    inside = (mean > low) & (mean < high)
    filled = tf.reduce_sum(numbers, axis=-1)
    enough = inside | (tf.math.divide_no_nan(filled, sizes) * white > target)

    # Mean at the gain that makes a value just white: there smaller values are not clipped and larger ones are.
    weights = values * numbers
    saturated = filled[..., None] - tf.cumsum(numbers, axis=-1)
    means = tf.cumsum(weights, axis=-1) * tf.constant(WHITE / _VALUES) + white * saturated
    means = tf.math.divide_no_nan(means, sizes[..., None])
    unclipped = means >= target[..., None]
    others = tf.reduce_sum(tf.where(unclipped, weights, 0.0), axis=-1)
    saturated = filled - tf.reduce_sum(tf.where(unclipped, numbers, 0.0), axis=-1)
    gains = tf.cast(tf.math.divide_no_nan(target * sizes - white * saturated, others), tf.float32)
    return tf.where(inside | ~enough, 1.0, gains), enough
