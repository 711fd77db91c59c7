"""A prediction as Labelme annotations, for a physician to correct and `prepare` to read.

One file per view, in the pixels of the raw view. A lesion is a polygon where one exists that is drawn back to exactly
its pixels. Elsewhere, mostly in lesions with a hole, it is a shape of the kind "mask": always exact, but Labelme cannot
edit it point by point.
"""

import base64
import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from doubleunet_bs.constants import METASTATIC, VIEWS
from doubleunet_bs.dicom_files.sources import Source
from doubleunet_bs.display import exact_polygon, labelme_file, png_bytes
from doubleunet_bs.errors import RunError, os_reason
from doubleunet_bs.files import create_file, json_text
from doubleunet_bs.findings.lesion_list import LesionArea

LABEL = "metastasis"


def lesion_shapes(areas: Iterable[LesionArea], label: str = LABEL) -> list[dict[str, Any]]:
    """The lesions of a view as Labelme shapes, one per area.

    Args:
        areas: from `find_areas`.
        label: of all shapes; see `class_label`.

    Returns:
        Shapes that `scans.labelme.rasterize` draws to exactly the pixels of the areas.
    """
    shapes = []
    for area in areas:
        shape: dict[str, Any] = {"label": label, "group_id": None, "description": "", "flags": {}}
        polygon = exact_polygon(area.inside)
        if polygon is None:
            shape |= {
                "shape_type": "mask",
                "points": [[area.first_column, area.first_row], [area.last_column, area.last_row]],
                "mask": base64.b64encode(png_bytes(area.inside.astype(np.uint8) * 255)).decode("ascii"),
            }
        else:
            shape |= {
                "shape_type": "polygon",
                "points": [[x + area.first_column, y + area.first_row] for x, y in polygon],
                "mask": None,
            }
        shapes.append(shape)
    return shapes


def class_label(classes: Mapping[str, int], number: int = METASTATIC, usual: str = LABEL) -> str:
    """The label of a class in the user's own class map, so that `prepare` with the same map reads it.

    `usual` is preferred among several, and taken where there is none.
    """
    labels = [label for label, own in classes.items() if own == number]
    return usual if usual in labels or not labels else min(labels)


def annotation_paths(folder: Path, sources: Sequence[Source], views: Sequence[str] = VIEWS) -> dict[str, Path]:
    """Where the annotations of a scan go, named as `prepare` expects: STEM_anterior.json and STEM_posterior.json.

    Args:
        folder: of the annotations.
        sources: one file, or two of one view each, the anterior one first.
        views: that the scan has.

    Raises:
        RunError: one of them exists. It may hold corrections and is never overwritten.
    """
    stems = dict(zip(VIEWS, (sources[0].stem, sources[-1].stem), strict=True))
    paths = {view: folder / f"{stems[view]}_{view}.json" for view in views}
    for path in paths.values():
        if path.exists():
            raise _taken(path)
    return paths


def write_annotations(
    paths: Mapping[str, Path],
    shapes: Mapping[str, list[dict[str, Any]]],
    size: tuple[int, ...],
    pictures: Mapping[str, bytes],
) -> None:
    """Write one self-contained Labelme file per view, all or none. Of several processes one succeeds.

    Args:
        paths, shapes, pictures: by view; pictures as the bytes of PNGs.
        size: (rows, columns) of a view.

    Raises:
        RunError: one of them exists by now and is left as it is, or one cannot be written.
    """
    written: list[Path] = []
    with removed_on_error(written):
        for view, path in paths.items():
            # Labelme wants the name of a picture. No such file may be here: `prepare` would take it for a mask.
            content = labelme_file(shapes[view], size, f"{path.stem}.png", pictures[view])
            try:
                created = create_file(path, json_text(content))
            except OSError as cause:
                raise RunError(f"{path}: cannot be written ({os_reason(cause)})") from None
            if not created:
                raise _taken(path)
            written.append(path)


@contextlib.contextmanager
def removed_on_error(paths: Iterable[Path]) -> Iterator[None]:
    """Remove `paths`, which this process has written, when the block ends with an error."""
    try:
        yield
    except BaseException:
        for path in paths:
            path.unlink(missing_ok=True)
        raise


def _taken(path: Path) -> RunError:
    return RunError(f"{path}: exists already and may hold corrections: move it, or choose another --labelme folder")
