"""What a scan is once it has been read: two views of counts, and nothing that identifies the patient."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class BoneScan:
    """One whole-body bone scan (paper, section 2.1).

    Attributes:
        anterior: uint16 array of shape (rows, columns), counts per pixel, the patient seen from the front
            (his right side on the left of the image). All zero when the view was missing and that was allowed.
        posterior: the same from behind, not mirrored: the patient's left side is on the left of the image.
        pixel_spacing_mm: (row spacing, column spacing), or None when the header does not say.
        case: pseudonym of the scan.
        patient: pseudonym of the patient, or None when the header has no PatientID.
        warnings: one line each, for a technician, without patient data.
        view_source: how the views were told apart: "view-code", "private-view-name", "orientation",
            "detector-angle" or "frame-order" (see `doubleunet_bs.scans.views`; decided here).
        source_sha256: SHA-256 of the bytes of the source file; of two files, one after the other, anterior first.
        missing_views: the views the source does not have, filled with zeros because the caller allowed it.
        pixel_sha256: SHA-256 of the counts of both views (see `doubleunet_bs.scans.pixels.pixel_hash`): equal for
            two files with the same counts, whatever their names, headers and compression.
        phantom: whether the source says that it is a synthetic scan of this package.
    """

    anterior: np.ndarray
    posterior: np.ndarray
    pixel_spacing_mm: tuple[float, float] | None
    case: str
    patient: str | None = None
    warnings: tuple[str, ...] = ()
    view_source: str = ""
    source_sha256: str = ""
    missing_views: tuple[str, ...] = ()
    pixel_sha256: str = ""
    phantom: bool = False
