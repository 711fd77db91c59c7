"""Files of a gamma camera -> `BoneScan`, and annotations -> lesion masks (paper, sections 2.1 and 2.2)."""

import importlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from doubleunet_bs.errors import ScanError
from doubleunet_bs.scans.bone_scan import BoneScan
from doubleunet_bs.scans.pseudonyms import Pseudonyms

if TYPE_CHECKING:
    from doubleunet_bs.scans.folder import Rejection, ScanFiles, ScanFolder, find_scans
    from doubleunet_bs.scans.sources import Source

__all__ = ["BoneScan", "Pseudonyms", "Rejection", "ScanFiles", "ScanFolder", "find_scans", "read_scan"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: what works on shards needs `BoneScan`, and not pydicom with its decoders.
    if name in ("Rejection", "ScanFiles", "ScanFolder", "find_scans"):
        return getattr(importlib.import_module("doubleunet_bs.scans.folder"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def read_scan(
    paths: str | os.PathLike | Sequence[str | os.PathLike],
    allow_missing_view: bool = False,
    pseudonyms: Pseudonyms | None = None,
) -> BoneScan:
    """Read one whole-body bone scan to the last count.

    Args:
        paths: a file with two frames; or two files of one study with one view each, in either order; or a zip archive
            with one scan in it.
        allow_missing_view: accept one view alone; the other is then all zero, and the scan carries a warning.
        pseudonyms: names the scan and the patient by keyed hashes of their identifiers. Without it the scan is named
            after the SHA-256 of its counts, and the patient is None.

    Returns:
        The scan: uint16 counts of shape (1024, 256) per view, and nothing that identifies the patient.

    Raises:
        ScanError: when the files are not a whole-body bone scan. Its text names the file and says why in one line, its
            `reason` is a slug such as `"tomographic"`, `"truncated"` or `"missing-view"`.

    Example:
        >>> scan = read_scan("scan.dcm")  # doctest: +SKIP
        >>> scan.anterior.shape, scan.anterior.sum()  # doctest: +SKIP
        ((1024, 256), 1500321)
    """
    from doubleunet_bs.scans.dicom import read_sources
    from doubleunet_bs.scans.folder import find_scans
    from doubleunet_bs.scans.sources import Source, is_archive

    if isinstance(paths, str | bytes | os.PathLike):
        paths = [paths]
    sources = [Source(os.fsdecode(path)) for path in paths]
    if len(sources) == 1 and is_archive(sources[0].path):
        found = find_scans(sources[0].path, allow_missing_view)
        if len(found.scans) != 1:
            raise _not_one_scan(sources[0], found)
        return found.scans[0].read(allow_missing_view, pseudonyms)
    return read_sources(sources, allow_missing_view, pseudonyms)


def _not_one_scan(source: "Source", found: "ScanFolder") -> ScanError:
    if not found.scans and len(found.rejected) == 1:
        only = found.rejected[0]
        # The archive itself may be what was refused.
        inside = "" if only.path == os.path.basename(source.path) else f"!{only.path}"
        return ScanError(f"{source.label}{inside}: {only.message}", only.reason)
    return ScanError(f"{source.label}: holds {len(found.scans)} scans; name an archive of one", "archive")
