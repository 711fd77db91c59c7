"""Region masks of the skeleton in a shard: from annotation files to one mask of the prepared image.

The files have the names of lesion annotations (`preparation.annotations`) and lie in a folder of their own. Labelme
files use the names of the regions. PNG masks use their numbers, 1 to 12, with 0 for what is not bone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from doubleunet_bs.bsi.regions import REGION_LABELS, REGIONS, check_regions
from doubleunet_bs.constants import CROP_SHAPE, KEPT_ROWS, RAW_SHAPE, VIEWS
from doubleunet_bs.errors import LabelError
from doubleunet_bs.preparation import geometry
from doubleunet_bs.preparation.annotations import read_annotation
from doubleunet_bs.preparation.case import PreparedCase

_CLASSES = {**REGION_LABELS, **{str(region.number): region.number for region in REGIONS}}


def read_regions(
    names: Sequence[str], files: Sequence[Path], missing_views: Sequence[str] = ()
) -> dict[str, np.ndarray] | None:
    """Read the regions of one scan.

    Args:
        names: of the scan's files. files: its region annotations. missing_views: views the scan lacks.

    Returns:
        "anterior" and "posterior" in raw-view coordinates, but for missing views; or their crops, (640, 256), when the
        regions were drawn on the prepared image. None without files.

    Raises:
        LabelError: as `read_annotation`; an unknown region; a view that is not annotated; a posterior sternum.
    """
    if not files:
        return None
    try:
        drawn = read_annotation(names, files, _CLASSES, missing_views).lesions
    except LabelError as error:
        if error.reason != "label-unknown":
            raise
        # Its own advice is to change the class map, which regions do not have.
        what = str(error).split(", which the class map lacks")[0].split(" has no class")[0]
        message = f"{what}, which is no region: use the names or numbers 1 to 12 of assets/docs/bsi.md"
        raise LabelError(message, "region-unknown") from None
    views = {}
    for place, mask in drawn.items():
        if place in VIEWS:
            views[place] = mask
        else:
            half = mask.shape[1] // 2
            views |= {"anterior": mask[:, :half], "posterior": mask[:, half:]}
    for view in VIEWS:
        if view in missing_views:
            if views.pop(view, np.zeros(1)).any():
                raise LabelError(f"regions of the {view} view are drawn, but the scan lacks it", "label-missing-view")
        elif view not in views or not views[view].any():
            raise LabelError(
                f"{_file_of(view, files)}: the {view} view has no regions: draw both views", "region-missing-view"
            )
    try:
        check_regions(views)
    except LabelError as error:
        # Numbers were checked on reading: what is left is a posterior sternum.
        raise LabelError(f"{_file_of('posterior', files)}: {error}", error.reason) from None
    return views


def _file_of(view: str, files: Sequence[Path]) -> Path:
    """The file that is named after a view; the first one where none is, as with both views in one file."""
    return next((file for file in files if view in file.stem.casefold()), files[0])


def prepare_regions(case: PreparedCase, regions: Mapping[str, np.ndarray]) -> np.ndarray:
    """The regions of a prepared image, from those of `read_regions`.

    Returns:
        uint8 array of the shape of `case.counts`: 0 not bone, 1 to 12. With binning, the most frequent number of each
        block, of equally frequent ones the smallest.
    """
    halves = []
    for view in VIEWS:
        mask = regions.get(view, np.zeros((KEPT_ROWS, CROP_SHAPE[1]), np.uint8))
        halves.append(geometry.crop(mask, case.placements[view], KEPT_ROWS) if mask.shape == RAW_SHAPE else mask)
    merged = geometry.merge(*halves)
    bin = case.settings.bin
    if bin == 1:
        return merged
    rows, columns = merged.shape
    blocks = merged.reshape(rows // bin, bin, columns // bin, bin)
    frequency = np.stack([(blocks == number).sum(axis=(1, 3)) for number in range(len(REGIONS) + 1)])
    return frequency.argmax(axis=0).astype(np.uint8)
