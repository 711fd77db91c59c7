"""Names of the files of a result, and which of them a user can choose."""

from collections.abc import Collection

from doubleunet_bs.errors import SettingsError

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
