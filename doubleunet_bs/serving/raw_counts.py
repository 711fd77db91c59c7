"""The endpoint `raw_counts`: raw counts in, a mask on the raw views out, all of it inside the graph.

The same steps as `preparation.prepare_scan`, the network, and `PreparedCase.map_back`, for callers without the package.
A scan that cannot be prepared gets an empty mask and a `status` that says why. The other scans of its batch get the
mask, status, gains and body that they get alone, and probabilities equal to within 1e-5.
"""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from doubleunet_bs.constants import KEPT_ROWS, RAW_SHAPE
from doubleunet_bs.inference.engines import BODY, GAINS, RAW_INPUT, STATUS
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.serving import preparation_graph
from doubleunet_bs.serving.preparation_graph import Bodies


@dataclasses.dataclass(frozen=True)
class PreparedCounts:
    """n scans as the network sees them.

    Attributes:
        grey: (n, rows, columns) uint8 prepared images; black where `status` is not 0.
        gains: (n, 2) float32.
        bodies: see `preparation_graph.Bodies`.
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
    bodies = preparation_graph.find_bodies(counts, present)
    crops = preparation_graph.sum_blocks(
        preparation_graph.crop(counts, bodies), settings.bin, settings.source == "pictures"
    )
    gains, bright = preparation_graph.find_gains(crops, present, settings.brightness)
    status = tf.where(bodies.found, tf.where(bright, 0, 3), tf.where(tf.reduce_any(present, axis=1), 2, 1))
    good = status == 0
    gains = tf.where(good[:, None], gains, 1.0)
    kept = crops[:, :, : KEPT_ROWS // settings.bin]
    grey = preparation_graph.merge(preparation_graph.to_grey(kept, gains))
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
                    preparation_graph.map_back(answer[name], prepared.bodies, settings.bin),
                    tf.zeros((), answer[name].dtype),
                )
                for name in answer
            },
            GAINS: prepared.gains,
            BODY: prepared.bodies.boxes,
            STATUS: prepared.status,
        }

    return segment_counts
