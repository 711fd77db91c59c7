"""The Bone Scan Index of a predicted scan: `predict --skeleton`."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from doubleunet_bs.bsi import BoneScanIndex, bone_scan_index, choose_table
from doubleunet_bs.bsi.agreement import (
    REPEATABILITY,
    REPEATABILITY_BELOW,
    REPEATABILITY_FROM,
    REPEATABILITY_HIGHEST,
)
from doubleunet_bs.bsi.regions import without_posterior_sternum
from doubleunet_bs.constants import KEPT_ROWS, VIEWS
from doubleunet_bs.errors import RunError
from doubleunet_bs.inference.model_description import ModelDescription
from doubleunet_bs.inference.model_folder import find_model
from doubleunet_bs.inference.predictor import Prediction, Predictor
from doubleunet_bs.preparation.case import PreparedCase
from doubleunet_bs.scans.bone_scan import BoneScan

FEW_COUNTS = 1_000_000
"""Of both views. With fewer, published errors of such an index grow from 0.2 to 0.6 points and more."""
NOTE = "Percent of the weight of the skeleton. Not for diagnosis; not validated on patients; no cut-off exists."


@dataclasses.dataclass(frozen=True)
class SkeletonResult:
    """What the network of the skeleton adds to a result.

    Attributes:
        regions: view -> uint8 (1024, 256) in the pixels of the raw view: 0 not bone, 1 to 12.
        index: the Bone Scan Index.
        table_reason: why its weight table was taken.
        model: of the skeleton.
        warnings: those of the index, and of few counts.
    """

    regions: dict[str, np.ndarray]
    index: BoneScanIndex
    table_reason: str
    model: ModelDescription
    warnings: tuple[str, ...]

    @property
    def result_warnings(self) -> list[str]:
        """The warnings as the result shows them everywhere: an index without its doubts would be taken for exact."""
        return [f"Bone Scan Index: {line}" for line in self.warnings]

    def to_json(self) -> dict[str, Any]:
        """The entry `bone_scan_index` of `result.json`."""
        model = self.model
        return {
            **self.index.to_json(),
            "warnings": list(self.warnings),
            "table_reason": self.table_reason,
            "note": NOTE,
            "model": {
                "name": model.name,
                "quality": model.quality,
                "weights_sha256": model.weights_sha256,
                "trained_on": model.trained_on,
            },
        }


@dataclasses.dataclass(frozen=True)
class Networks:
    """What segments the scans of a job. A scan is prepared once, for both networks.

    Attributes:
        lesions: the model of lesions. skeleton: that of the skeleton; None for no index.
        table: name of the weight table; None chooses it by the sex in the header.

    Raises:
        RunError: the models ask for images that were prepared differently.
    """

    lesions: Predictor
    skeleton: Predictor | None = None
    table: str | None = None

    def __post_init__(self):
        if self.skeleton:
            check_same_preparation(self.lesions.description, self.skeleton.description)

    def segment(self, scan: BoneScan, prepared: PreparedCase) -> tuple[Prediction, SkeletonResult | None]:
        """Segment a scan from its prepared image."""
        [prediction] = self.lesions.segment([prepared])
        if self.skeleton is None:
            return prediction, None
        [regions] = self.skeleton.segment([prepared])
        return prediction, find_index(scan, prediction, regions, self.table)


def describe_change(result: Mapping[str, Any], previous: Mapping[str, Any]) -> dict[str, Any]:
    """The change of the index since an earlier result, beside what repeated scans differ by.

    Args:
        result, previous: contents of `result.json`, the first with an index.

    Returns:
        A JSON object: points, the index of the earlier result in percent, the repeatability coefficient in points at
        such indices, whether the change is within it (None above the indices it was measured at), and a line of text.
        Where the two results cannot be compared the text says why, and the others are None.
    """
    found: dict[str, Any] = dict.fromkeys(("points", "previous", "repeatability", "within"))
    if (reason := _why_not_comparable(result, previous)) is not None:
        return found | {"text": f"no change is given: {reason}"}
    now, before = (one["bone_scan_index"]["value"] for one in (result, previous))
    points = now - before
    limit = REPEATABILITY if (now + before) / 2 >= REPEATABILITY_FROM else REPEATABILITY_BELOW
    measured = max(now, before) <= REPEATABILITY_HIGHEST
    within = abs(points) <= limit if measured else None
    beside = f"within the repeatability on phantoms, {limit:.2f} points"
    if not within:
        beside = f"repeatability on phantoms {limit:.2f} points"
        beside += "" if measured else f", measured up to an index of {REPEATABILITY_HIGHEST:g} % only"
    return {
        "points": points,
        "previous": before,
        "repeatability": limit,
        "within": within,
        "text": f"{points:+.2f} points since the previous scan ({before:.2f} %); {beside}",
    }


def _why_not_comparable(result: Mapping[str, Any], previous: Mapping[str, Any]) -> str | None:
    now, before = result["bone_scan_index"], previous["bone_scan_index"]
    if before is None:
        return "the previous result has no index, segment that scan again with --skeleton"
    if now["table"] != before["table"]:
        return f"the previous index is by the weight table {before['table']}, this one by {now['table']}"
    if now["estimator"] != before["estimator"]:
        return f"the previous index is by the estimator {before['estimator']}, this one by {now['estimator']}"
    if result["model"]["weights_sha256"] != previous["model"]["weights_sha256"]:
        return "the previous lesions are by another model"
    if now["model"]["weights_sha256"] != before["model"]["weights_sha256"]:
        return "the previous regions are by another model of the skeleton"
    if result["threshold"] != previous["threshold"]:
        return "the previous lesions are by another threshold"
    if set(now["views"]) != set(before["views"]):
        return "a view is missing in one of the scans"
    return None


def describe_models(model: str, skeleton: str | None) -> tuple[ModelDescription, ModelDescription | None]:
    """What the folders of two models say, of lesions and of the skeleton; no TensorFlow is needed for it.

    Args:
        model, skeleton: folders; None for no skeleton.

    Raises:
        RunError: no such model, one of another kind, or the two are prepared differently.
    """
    lesions = find_model(Path(model)).description
    lesions.check_kind(model, skeleton=False)
    if skeleton is None:
        return lesions, None
    bones = find_model(Path(skeleton)).description
    bones.check_kind(skeleton, skeleton=True)
    check_same_preparation(lesions, bones)
    return lesions, bones


def check_same_preparation(lesions: ModelDescription, skeleton: ModelDescription) -> None:
    """Both networks look at one prepared image.

    Raises:
        RunError: the models ask for images that were prepared differently.
    """
    changes = skeleton.preparation.image_changes(lesions.preparation)
    if changes or lesions.image_shape != skeleton.image_shape:
        what = ", ".join(changes) or "size"
        raise RunError(
            f"lesions and skeleton are prepared differently ({what}): train both models on shards prepared alike"
        )


def find_index(scan: BoneScan, prediction: Prediction, regions: Prediction, table: str | None) -> SkeletonResult:
    """The Bone Scan Index from predicted lesions and regions.

    Args:
        scan: what both are of.
        prediction: of the lesions. regions: of the skeleton.
        table: name of a weight table; None chooses it by the sex in the header.
    """
    weights, reason = choose_table(table, scan.sex)
    present = [view for view in VIEWS if view not in scan.missing_views]
    rows = {view: prediction.prepared.placements[view].top for view in present}
    masks, wrong = without_posterior_sternum({view: regions.masks[view] for view in present})
    warnings = [f"{wrong} pixels of sternum in the posterior view count as not bone"] if wrong else []
    index = bone_scan_index(
        {view: prediction.masks[view].astype(bool) for view in present},
        masks,
        weights,
        scan.pixel_spacing_mm,
        {view: (top, top + KEPT_ROWS) for view, top in rows.items()},
    )
    if regions.model.quality_warning:
        warnings.append(f"unreliable model of the skeleton: {regions.model.quality_warning}")
    counts = sum(int(getattr(scan, view).sum(dtype=np.int64)) for view in present)
    if counts < FEW_COUNTS:
        warnings.append(f"{counts:,} counts: below {FEW_COUNTS:,} the index is unreliable")
    masks |= {view: regions.masks[view] for view in VIEWS if view not in present}
    return SkeletonResult(masks, index, reason, regions.model, (*index.warnings, *warnings))
