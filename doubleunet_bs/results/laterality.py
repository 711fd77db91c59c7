"""What DICOM results say of the patient's sides: nothing where they are in doubt (see `display.sides`)."""

from collections.abc import Collection

from doubleunet_bs.display import sides


def orientation(view: str, warnings: Collection[str]) -> list[str] | None:
    """Patient Orientation of a view: the patient's side to which its rows run, and the feet, to which its columns run.

    None, which DICOM writes as an empty element, when the sides are in doubt.
    """
    side = sides(view, warnings)[1]
    return None if side == "?" else [side, "F"]
