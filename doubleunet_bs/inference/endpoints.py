"""The endpoints of an exported model: names, types, shapes, and what the values mean.

TensorFlow is not imported.
"""

from collections.abc import Collection
from typing import Any

from doubleunet_bs.constants import RAW_SHAPE
from doubleunet_bs.preparation.settings import PreparationSettings

ENDPOINT, INPUT = "serving_default", "image"
PROBABILITY, MASK = "metastatic_probability", "mask"
REGION_PROBABILITY = "region_probability"
"""Instead of PROBABILITY in a model of the skeleton, whose mask holds the numbers of regions."""

RAW_ENDPOINT, RAW_INPUT = "raw_counts", "counts"
GAINS, BODY, STATUS = "gains", "body", "status"
STATUS_REASONS = ("ok", "missing-view", "no-body", "too-dark")
"""What the values 0, 1, 2, 3 of `status` mean: the reasons of `prepare_scan`'s errors."""

DESCRIPTION_ENDPOINT, DESCRIPTION_INPUT, DESCRIPTION_OUTPUT = "model_description", "query", "description"
"""The model's description as a string: a model server gives out no files, so clients ask it this way."""

_LIMIT = "a model server has a largest number of scans in one request, its max_batch_size"


def probability_name(outputs: Collection[str]) -> str:
    """The name of the probabilities among the outputs of a model of lesions or of the skeleton."""
    return REGION_PROBABILITY if REGION_PROBABILITY in outputs else PROBABILITY


def describe_endpoints(
    image_shape: tuple[int, int], preparation: PreparationSettings, skeleton: bool = False, benign: bool = False
) -> dict[str, Any]:
    """A JSON object: endpoint -> inputs and outputs -> type, shape (null: any number of scans) and meaning."""
    image, raw = [None, *image_shape], [None, 2, *RAW_SHAPE]
    mask, probability = "1 where metastatic is the most probable class", PROBABILITY
    mask += "; 2 where benign is" if benign else ""
    meaning = "probability of the metastatic class"
    if skeleton:
        mask, probability = "the most probable region, 1 to 12; 0 not bone", REGION_PROBABILITY
        meaning = "probability of the class in the mask"
    endpoints = {
        ENDPOINT: {
            "inputs": {INPUT: _tensor("uint8", image, f"prepared grey images; {_LIMIT}")},
            "outputs": {
                MASK: _tensor("uint8", image, mask),
                probability: _tensor("float32", image, meaning),
            },
        },
        DESCRIPTION_ENDPOINT: {
            "inputs": {DESCRIPTION_INPUT: _tensor("uint8", [None], "any values; one description for each")},
            "outputs": {DESCRIPTION_OUTPUT: _tensor("string", [None], "this JSON")},
        },
    }
    if has_raw_counts(image_shape, preparation):
        views = f"raw anterior and posterior view; a view of zeros is missing; {_LIMIT}"
        endpoints[RAW_ENDPOINT] = {
            "inputs": {RAW_INPUT: _tensor("uint16", raw, views)},
            "outputs": {
                MASK: _tensor("uint8", raw, "as above, in raw pixels; 0 outside the crop"),
                probability: _tensor("float32", raw, "as above, in raw pixels; 0 outside the crop"),
                GAINS: _tensor("float32", [None, 2], "brightness gain of each view"),
                BODY: _tensor("int32", [None, 2, 4], "first and last row, first and last column of the body; -1: none"),
                STATUS: _tensor("uint8", [None], "0: done; else the scan is not segmented and its mask means nothing")
                | {"values": {str(value): reason for value, reason in enumerate(STATUS_REASONS)}},
            },
        }
    return endpoints


def has_raw_counts(image_shape: tuple[int, int], preparation: PreparationSettings) -> bool:
    """Whether the model takes images of the size that the preparation makes of a scan.

    Example:
        >>> has_raw_counts((640, 512), PreparationSettings()), has_raw_counts((160, 128), PreparationSettings())
        (True, False)
    """
    return tuple(image_shape) == preparation.image_shape


def _tensor(dtype: str, shape: list, meaning: str) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "meaning": meaning}
