"""Names and places of the files of a result, and which of them a user can choose."""

import os
from collections.abc import Collection
from pathlib import Path

from doubleunet_bs.errors import BoneScanError, RunError, SettingsError
from doubleunet_bs.files import exists_already, read_json

FORMAT = 2
"""Of `result.json`. 2 added lesions, the body area and the list of files."""

RESULT, OVERLAY, REPORT = "result.json", "overlay.png", "report.html"
CAPTURE, SCAN_COPY = "overlay.dcm", "scan.dcm"
OUTPUTS = ("masks", "overlay", "dicom", "labelme", "report")
"""What can be left out; `result.json` is always written."""


def mask_name(view: str, suffix: str) -> str:
    """File name of a view's mask: "mask_anterior.npy"."""
    return f"mask_{view}{suffix}"


def picture_name(view: str) -> str:
    """File name of the picture of a raw view: "view_anterior.png"."""
    return f"view_{view}.png"


def annotation_name(view: str) -> str:
    """File name of a view's Labelme annotation: "annotation_anterior.json"."""
    return f"annotation_{view}.json"


def segmentation_name(view: str) -> str:
    """File name of a view's DICOM segmentation: "segmentation_anterior.dcm"."""
    return f"segmentation_{view}.dcm"


def parse_outputs(text: str) -> tuple[str, ...]:
    """A list such as "masks,report", or "all".

    Returns:
        Members of OUTPUTS, in its order; empty for "none": `result.json` alone.

    Raises:
        SettingsError: an unknown name.
    """
    if text in ("all", "none"):
        return OUTPUTS if text == "all" else ()
    names: Collection[str] = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in OUTPUTS:
            raise SettingsError(f"output {name!r}: choose among {', '.join(OUTPUTS)}, or all, or none")
    return tuple(name for name in OUTPUTS if name in names)


def is_result(folder: Path) -> bool:
    """Whether a folder is the result of a prediction, of this version of the package or another."""
    try:
        content = read_json(folder / RESULT)
    except BoneScanError:
        return False
    return isinstance(content, dict) and {"format", "case", "intended_use"} <= set(content)


def result_folder(out: str | os.PathLike, case: str, overwrite: bool = False) -> Path:
    """Where the result of a case goes.

    Raises:
        RunError: there is one already and `overwrite` is off, or something else in its place.
    """
    folder = Path(out) / case
    if folder.exists():
        if not overwrite:
            raise exists_already(folder)
        if not (folder / RESULT).is_file():
            raise RunError(f"{folder}: is not a result of this package and is left alone; choose another --out folder")
    return folder
