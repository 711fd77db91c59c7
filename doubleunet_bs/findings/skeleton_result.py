"""The Bone Scan Index of a predicted scan: `predict --skeleton`."""

import dataclasses
from typing import Any

import numpy as np

from doubleunet_bs.bsi import BoneScanIndex, bone_scan_index, choose_table
from doubleunet_bs.bsi.regions import without_posterior_sternum
from doubleunet_bs.constants import KEPT_ROWS, VIEWS
from doubleunet_bs.errors import RunError
from doubleunet_bs.inference.model_description import ModelDescription
from doubleunet_bs.inference.predictor import Prediction
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


def check_same_preparation(lesions: ModelDescription, skeleton: ModelDescription) -> None:
    """Both networks look at one prepared image.

    Raises:
        RunError: the models ask for images that were prepared differently.
    """
    changes = skeleton.preparation.changes(lesions.preparation)
    changes.pop("otsu_histogram", None)  # of labels alone
    changes.pop("background", None)
    if changes or lesions.image_shape != skeleton.image_shape:
        what = ", ".join(changes) or "size"
        raise RunError(f"--skeleton: prepared differently from --model ({what}): train both on shards prepared alike")


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
