"""The files of a result: their names, which of them a user can choose, and where they go.

result.json                     always: lesions, areas, model, gains, warnings; nothing of the patient
masks     mask_VIEW.npy         uint8 (1024, 256) of 0 and 1, in the pixels of the raw view
          mask_VIEW.png         the same with 0 and 255, to look at
overlay   overlay.png           both raw views with the outlines of the prediction
dicom     segmentation.dcm      DICOM segmentation of both views
          overlay.dcm           DICOM secondary capture of the overlay
          scan.dcm              the de-identified scan that both refer to; not with the patient's identity
labelme   annotation_VIEW.json  Labelme outlines to correct; not of a missing view
          view_VIEW.png         the picture the outlines belong to
report    report.html           a page to read
"""

import dataclasses
import os
from pathlib import Path

from doubleunet_bs.errors import BoneScanError, RunError, SettingsError
from doubleunet_bs.files import exists_already, read_json

FORMAT = 2
"""Of `result.json`. 2 added lesions, the body area and the list of files."""

RESULT, OVERLAY, REPORT = "result.json", "overlay.png", "report.html"
SEGMENTATION, CAPTURE, SCAN_COPY = "segmentation.dcm", "overlay.dcm", "scan.dcm"
# With the name of a view in place of the braces.
MASK, MASK_PICTURE = "mask_{}.npy", "mask_{}.png"
ANNOTATION, PICTURE = "annotation_{}.json", "view_{}.png"
OUTPUTS = ("masks", "overlay", "dicom", "labelme", "report")
"""What can be left out; `result.json` is always written."""


@dataclasses.dataclass(frozen=True)
class JobSettings:
    """What a user asked for.

    Attributes:
        out: folder of the results; made when it does not exist.
        outputs: members of OUTPUTS.
        allow_missing_view: accept a scan with one view.
        overwrite: replace the result of an earlier prediction of the same scan.
        keep_identity: write the patient's identity into the DICOM files.
        labelme: folder for further Labelme files named after the scans; None for none.
    """

    out: Path
    outputs: tuple[str, ...] = OUTPUTS
    allow_missing_view: bool = False
    overwrite: bool = False
    keep_identity: bool = False
    labelme: Path | None = None


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
        content = read_json(folder / RESULT)
    except BoneScanError:
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
            raise exists_already(folder)
        if not (folder / RESULT).is_file():
            raise RunError(f"{folder}: exists and is no result of this package: choose another --out folder")
    return folder
