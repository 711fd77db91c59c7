"""A prediction as Labelme annotations, to be corrected by a physician and trained on.

One file per view, in the pixels of the raw view, as `prepare` reads them. A lesion is a polygon wherever there is one that
is drawn back to exactly its pixels; elsewhere (a lesion with a hole, mostly) it is a shape of the kind "mask", which is
always exact and which Labelme edits point by point no longer (decided here).
"""

import base64
import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from doubleunet_bs.constants import METASTATIC, VIEWS
from doubleunet_bs.display import exact_polygon, png_bytes
from doubleunet_bs.errors import RunError
from doubleunet_bs.files import create_file, json_text
from doubleunet_bs.results.lesion_list import number_lesions
from doubleunet_bs.scans.sources import Source

VERSION = "5.5.0"
LABEL = "metastasis"


@dataclasses.dataclass(frozen=True)
class ViewAnnotation:
    """Attributes: shapes: those of a Labelme file, one per lesion, in the order of `number_lesions`."""

    shapes: list[dict[str, Any]]

    @property
    def kinds(self) -> list[str]:
        """ "polygon" or "mask", of each shape."""
        return [shape["shape_type"] for shape in self.shapes]


def annotate(mask: np.ndarray, label: str = LABEL) -> ViewAnnotation:
    """The lesions of a mask as Labelme shapes.

    Args:
        mask: uint8 array of shape (rows, columns), 0 and 1.
        label: of all shapes; see `metastatic_label`.

    Returns:
        Shapes that `scans.labelme.rasterize` draws to exactly the pixels of the mask; none for an empty mask.
    """
    total, numbers, boxes, _ = number_lesions(mask)
    shapes = []
    for index in range(total):
        first_row, last_row, first_column, last_column = map(int, boxes[index])
        area = numbers[first_row : last_row + 1, first_column : last_column + 1] == index + 1
        polygon = exact_polygon(area)
        shape = {"label": label, "group_id": None, "description": "", "flags": {}}
        if polygon is None:
            shape |= {
                "shape_type": "mask",
                "points": [[first_column, first_row], [last_column, last_row]],
                "mask": base64.b64encode(png_bytes(area.astype(np.uint8) * 255)).decode("ascii"),
            }
        else:
            shape |= {
                "shape_type": "polygon",
                "points": [[x + first_column, y + first_row] for x, y in polygon],
                "mask": None,
            }
        shapes.append(shape)
    return ViewAnnotation(shapes)


def metastatic_label(classes: Mapping[str, int]) -> str:
    """The label of a lesion in the user's own class map, so that he can prepare with the same map again."""
    labels = [label for label, number in classes.items() if number == METASTATIC]
    return LABEL if LABEL in labels or not labels else min(labels)


def labelme_file(
    annotation: ViewAnnotation, shape: tuple[int, int], image_path: str, embedded: bytes | None = None
) -> dict[str, Any]:
    """The content of a Labelme JSON file.

    Args:
        annotation: of one view.
        shape: (rows, columns) of the view.
        image_path: name of the picture's file, beside the JSON file.
        embedded: PNG bytes of the picture, to be put into the JSON file: nothing has to lie beside it then.
    """
    return {
        "version": VERSION,
        "flags": {},
        "shapes": annotation.shapes,
        "imagePath": image_path,
        "imageData": None if embedded is None else base64.b64encode(embedded).decode("ascii"),
        "imageHeight": shape[0],
        "imageWidth": shape[1],
    }


def annotation_paths(folder: Path, sources: Sequence[Source], views: Sequence[str] = VIEWS) -> dict[str, Path]:
    """Where the annotations of a scan go so that `prepare` takes them for that scan.

    They are named after the scan's own files: STEM_anterior.json and STEM_posterior.json.

    Args:
        folder: of the annotations.
        sources: one file, or two of one view each, the anterior one first.
        views: that the scan has.

    Raises:
        RunError: one of them is there already. It may have been corrected by hand, so that nothing overwrites it.
    """
    stems = dict(zip(VIEWS, (sources[0].stem, sources[-1].stem), strict=True))
    paths = {view: folder / f"{stems[view]}_{view}.json" for view in views}
    for path in paths.values():
        if path.exists():
            raise _taken(path)
    return paths


def write_annotations(
    paths: Mapping[str, Path],
    annotations: Mapping[str, ViewAnnotation],
    shape: tuple[int, int],
    pictures: Mapping[str, bytes],
) -> None:
    """Write one self-contained Labelme file per view, all or none. Of several processes one succeeds.

    Args:
        paths, annotations, pictures: by view; pictures as the bytes of PNGs.
        shape: (rows, columns) of a view.

    Raises:
        RunError: one of them has come to be there; it is left as it is. Or one cannot be written.
    """
    written: list[Path] = []
    with gone_on_error(written):
        for view, path in paths.items():
            # `imagePath` is what Labelme calls the picture; no file of that name is needed, nor should one lie here,
            # where `prepare` would take it for a mask.
            content = labelme_file(annotations[view], shape, f"{path.stem}.png", pictures[view])
            try:
                created = create_file(path, json_text(content))
            except OSError as cause:
                raise RunError(f"{path}: cannot be written ({cause.strerror or cause})") from None
            if not created:
                raise _taken(path)
            written.append(path)


@contextlib.contextmanager
def gone_on_error(paths: Iterable[Path]) -> Iterator[None]:
    """Remove files that this process has written when the block ends with an error."""
    try:
        yield
    except BaseException:
        for path in paths:
            path.unlink(missing_ok=True)
        raise


def _taken(path: Path) -> RunError:
    return RunError(
        f"{path}: exists already and may hold corrections; it is never overwritten: move it, or choose another folder"
    )
