"""Which annotation files belong to which scan, and what they say of it (paper, section 2.2).

Of a scan in the file `S.dcm`: `S_anterior.json` and `S_posterior.json`, each drawn on one raw view, or `S.json`,
drawn on both raw views side by side or on the prepared image, told apart by size. Of a scan in two one-view files:
`FILE.json` for each as well. PNG masks may stand in the place of JSON files. A file may lie in any folder below the
labels folder.
"""

import dataclasses
import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from doubleunet_bs.classes import METASTATIC
from doubleunet_bs.errors import LabelError
from doubleunet_bs.preparation.case import VIEWS
from doubleunet_bs.preparation.patients import Declaration
from doubleunet_bs.scans.label_frames import frame_of
from doubleunet_bs.scans.labelme import rasterize
from doubleunet_bs.scans.mask_png import read_mask

ENDINGS = (".json", ".png")


def index_labels(folder: str | os.PathLike, leave_out: Collection[Path] = ()) -> dict[str, list[Path]]:
    """Stem -> annotation files of that stem, sorted.

    Args:
        folder: searched with all folders below it, except hidden ones and files.
        leave_out: files that are no annotations, for instance the class map.
    """
    out = {Path(path).resolve() for path in leave_out}
    found = defaultdict(list)
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place) / name
            if not name.startswith(".") and path.suffix.lower() in ENDINGS and path.resolve() not in out:
                found[path.stem].append(path)
    return dict(found)


def stems_of(names: Sequence[str]) -> list[str]:
    """All stems that annotation files of a scan with these names can have."""
    return [stem for name in names for stem in (name, *(f"{name}_{view}" for view in VIEWS))]


@dataclasses.dataclass(frozen=True)
class Annotation:
    """What is annotated of one scan.

    Attributes:
        lesions: as `prepare_scan` takes them; empty when there is no file.
        metastatic: whether any pixel is metastatic.
        warnings: one line each.
    """

    lesions: dict[str, np.ndarray]
    metastatic: bool
    warnings: tuple[str, ...]


def read_annotation(
    names: Sequence[str], files: Sequence[Path], classes: Mapping[str, int], missing_views: Sequence[str] = ()
) -> Annotation:
    """Read the annotation of one scan.

    Args:
        names: of the scan's files: one, or two of one view each, the anterior one first.
        files: its annotation files.
        classes: label -> class.
        missing_views: views the scan lacks.

    Raises:
        LabelError: a file that cannot be read; reason "label-ambiguous" when two files claim the same view.
    """
    lesions: dict[str, np.ndarray] = {}
    origin: dict[str, Path] = {}
    for path in files:
        mask = (read_mask if path.suffix.lower() == ".png" else rasterize)(path, classes)
        place = _place(path, frame_of(mask.shape), names, missing_views)
        if place in lesions:
            raise LabelError(
                f"{path}: annotates the same as {origin[place].name}; keep one of the two", "label-ambiguous"
            )
        lesions[place], origin[place] = mask, path
    if len(lesions) > 1 and set(lesions) != set(VIEWS):
        raise LabelError(
            f"{files[0]}: beside it there is {files[1].name}, drawn on another image; keep one of the two",
            "label-ambiguous",
        )
    warnings = []
    absent = set(VIEWS) - set(lesions) - set(missing_views)
    if set(lesions) & set(VIEWS) and absent:
        warnings.append(f"no annotation file of the {absent.pop()} view: taken as free of lesions")
    return Annotation(lesions, any((mask == METASTATIC).any() for mask in lesions.values()), tuple(warnings))


def decide_group(annotation: Annotation, declared: Declaration | None) -> str:
    """ "positive" or "negative", from what is drawn and what `patients.csv` says.

    Raises:
        LabelError: reason "label-missing" when nothing is annotated and nobody said that this is a normal scan;
            "label-contradiction" when drawing and declaration contradict each other.
    """
    says = declared.metastases if declared else None
    if says is None and not annotation.metastatic:
        raise LabelError(
            "no annotation of a metastasis: annotate the scan, or declare it normal with metastases=no in patients.csv",
            "label-missing",
        )
    if says is True and not annotation.metastatic:
        raise LabelError(
            "declared metastases=yes in patients.csv, but no metastasis is annotated", "label-contradiction"
        )
    if says is False and annotation.metastatic:
        raise LabelError("declared metastases=no in patients.csv, but a metastasis is annotated", "label-contradiction")
    return "positive" if annotation.metastatic else "negative"


def _place(path: Path, frame: str, names: Sequence[str], missing_views: Sequence[str]) -> str:
    suffix = next((view for view in VIEWS if any(path.stem == f"{name}_{view}" for name in names)), None)
    if suffix and frame != "view":
        raise LabelError(f"{path}: named after one view, but not drawn on an image of 1024 x 256 pixels", "label-frame")
    if suffix or frame != "view":
        return suffix or frame
    if len(names) == 2:
        return VIEWS[list(names).index(path.stem)]
    if len(missing_views) == 1:
        return next(view for view in VIEWS if view not in missing_views)
    raise LabelError(
        f"{path}: drawn on one view, but which? Name it {path.stem}_anterior{path.suffix} "
        f"or {path.stem}_posterior{path.suffix}",
        "label-frame",
    )
