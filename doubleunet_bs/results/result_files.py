"""The files of a result, which `predict --help` lists: their names, which a user can choose, and where they go."""

import dataclasses
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from doubleunet_bs.constants import VIEWS
from doubleunet_bs.dicom_results import BSI, CAPTURE, LESIONS, SCAN_COPY, SECOND_SEGMENTATION, SEGMENTATION
from doubleunet_bs.errors import BoneScanError, RunError, SettingsError
from doubleunet_bs.files import read_json

if TYPE_CHECKING:
    from doubleunet_bs.scans.bone_scan import BoneScan

FORMAT = 2
"""Of `result.json`. 2 added lesions, the body area and the list of files."""

RESULT, OVERLAY, REPORT = "result.json", "overlay.png", "report.html"
# With the name of a view in place of the braces.
MASK, MASK_PICTURE = "mask_{}.npy", "mask_{}.png"
REGION_MASK, REGION_PICTURE = "regions_{}.npy", "regions_{}.png"
ANNOTATION, PICTURE, PROBABILITY = "annotation_{}.json", "view_{}.png", "probability_{}.png"
THUMBNAIL = "thumbnail.png"
INDEX, COHORT = "index.html", "cohort.csv"
"""Beside the result folders: of all results in a folder."""
FILES_SUFFIX = ".files.csv"
"""Added to the name of that folder: the table case -> files."""
MOST_BYTES = 16 << 20
"""Of a file of a result: a `result.json` with some ten thousand lesions, a mask, a picture."""
OUTPUTS = ("masks", "overlay", "dicom", "labelme", "report", "probability")
"""What can be left out; `result.json` is always written."""


@dataclasses.dataclass(frozen=True)
class JobSettings:
    """What a user asked for.

    Attributes:
        out: folder of the results; made when it does not exist.
        outputs: members of OUTPUTS.
        allow_missing_view: accept a scan with one view.
        overwrite: replace the result of an earlier prediction of the same scan.
        skip_existing: leave out scans whose result is there, whole and of the same model. With `overwrite` others are
            replaced.
        keep_identity: write the patient's identity into the DICOM files.
        labelme: folder for further Labelme files named after the scans; None for none.

    Raises:
        SettingsError: outputs that are not in OUTPUTS.
    """

    out: Path
    outputs: tuple[str, ...] = OUTPUTS
    allow_missing_view: bool = False
    overwrite: bool = False
    keep_identity: bool = False
    labelme: Path | None = None
    skip_existing: bool = False

    def __post_init__(self):
        if isinstance(self.outputs, str) or not set(OUTPUTS).issuperset(self.outputs):
            raise SettingsError(f"outputs {self.outputs!r}: give a tuple with names of {', '.join(OUTPUTS)}")

    @property
    def files_file(self) -> Path:
        """The table case -> files beside the results: shared together with them it would name patients."""
        out = Path(os.path.abspath(self.out))
        return out.with_name(f"{out.name}{FILES_SUFFIX}")


def outputs_of(scan: "BoneScan", outputs: Sequence[str]) -> tuple[str, ...]:
    """The outputs that a scan gets: of pictures none in DICOM, which would pass display grey off as counts."""
    return tuple(output for output in outputs if output != "dicom" or not scan.pictures)


def file_names(
    outputs: Collection[str],
    present: Collection[str],
    identified: bool,
    lesions: bool,
    skeleton: bool = False,
    two_series: bool = False,
) -> set[str]:
    """The files of a result folder.

    Args:
        outputs: members of OUTPUTS.
        present: the views that are not missing.
        identified: whether the DICOM files carry the patient's identity.
        lesions: whether there is a lesion: without one there is no structured report.
        skeleton: whether a model of the skeleton takes part.
        two_series: whether the views are files of two series.
    """
    masks = (MASK, MASK_PICTURE, REGION_MASK, REGION_PICTURE) if skeleton else (MASK, MASK_PICTURE)
    names = {
        "masks": [name.format(view) for view in VIEWS for name in masks],
        "overlay": [OVERLAY],
        "dicom": [
            SEGMENTATION,
            CAPTURE,
            *((SECOND_SEGMENTATION,) if two_series else ()),
            *((LESIONS,) if lesions else ()),
            *((BSI,) if skeleton else ()),
            *(() if identified else (SCAN_COPY,)),
        ],
        "labelme": [name.format(view) for view in present for name in (ANNOTATION, PICTURE)],
        "report": [REPORT, THUMBNAIL],
        "probability": [PROBABILITY.format(view) for view in VIEWS],
    }
    return {RESULT, *(name for output in outputs for name in names[output])}


def parse_outputs(text: str) -> tuple[str, ...]:
    """A list such as "masks,report", or "all".

    Returns:
        Members of OUTPUTS, in its order; empty for "none": `result.json` alone.

    Raises:
        SettingsError: an unknown name.

    Example:
        >>> parse_outputs("report, masks")
        ('masks', 'report')
    """
    if text in ("all", "none"):
        return OUTPUTS if text == "all" else ()
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in OUTPUTS:
            raise SettingsError(f"--outputs {name}: choose from {', '.join(OUTPUTS)}, or all, or none")
    return tuple(name for name in OUTPUTS if name in names)


def is_result(folder: Path) -> bool:
    """Whether a folder is the result of a prediction, of this version of the package or another."""
    try:
        content = read_json(folder / RESULT) if (folder / RESULT).stat().st_size <= MOST_BYTES else None
    except (BoneScanError, OSError):
        return False
    return isinstance(content, dict) and {"format", "case", "intended_use"} <= set(content)


def case_folder(out: str | os.PathLike, case: str, overwrite: bool = False) -> Path:
    """Where the result of a case goes.

    Raises:
        RunError: one exists and `overwrite` is off, or something else is in its place.
    """
    folder = Path(out) / case
    if folder.exists():
        if not overwrite:
            raise RunError(f"{folder}: exists already: give --skip-existing, --overwrite or another --out folder")
        if not (folder / RESULT).is_file():
            raise RunError(f"{folder}: exists and is no result of this package: choose another --out folder")
    return folder
