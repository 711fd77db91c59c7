"""Files and folders of a command line -> scans. Two one-view files given side by side are paired by their headers."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from doubleunet_bs.dicom_files.layout import load_scan_header
from doubleunet_bs.dicom_files.other_files import PassedOver
from doubleunet_bs.dicom_files.sources import Source, is_archive, prefix_errors, walk_folders
from doubleunet_bs.errors import ScanError, SettingsError, printable
from doubleunet_bs.results.result_files import COHORT, FILES_SUFFIX, INDEX, RESULT, is_result
from doubleunet_bs.scans.pairing import OneView, describe_view, pair_views
from doubleunet_bs.scans.picture_files import is_picture, view_of_path
from doubleunet_bs.scans.scan_files import Rejection, ScanFiles, ScanFolder, find_pictures, find_scans


def list_scans(paths: Sequence[str], allow_missing_view: bool = False) -> ScanFolder:
    """All scans of some files, folders and zip archives, from the headers alone.

    Results of this package below a folder are skipped: the copy of a scan in a result is not another scan.

    Args:
        paths: in any mixture; a folder is searched with all its subfolders. A result that is named itself is read.
            Grey pictures in a folder, not in an archive, are scans if no DICOM file of a scan is in it.
        allow_missing_view: accept a study with one view only.

    Returns:
        The scans, those of folders and archives first, and the other files with paths as the user gave them.

    Raises:
        SettingsError: a path does not exist.
    """
    for path in paths:
        if not os.path.exists(path):
            raise SettingsError(f"{path}: no such file or folder")
    scans: list[ScanFiles] = []
    rejected: list[Rejection] = []
    passed: list[PassedOver] = []
    single: list[OneView] = []
    pictures: dict[str, list[Source]] = {}
    for path in dict.fromkeys(map(os.path.normpath, paths)):
        if os.path.isdir(path) or is_archive(path):
            within = _results(path)
            found = _without(find_scans(path, allow_missing_view), path, within)
            if found.only_pictures and os.path.isdir(path):
                found = _without(find_pictures(path, allow_missing_view, others_beside=True), path, within)
            scans += found.scans
            rejected += found.rejected
            passed += found.passed_over
            if within and not found.scans and not found.rejected:
                message = "holds only results of earlier predictions: name a scan.dcm in them to segment it again"
                rejected.append(Rejection(path, "results", message))
            continue
        source = Source(path)
        try:
            if is_picture(source):
                pictures.setdefault(os.path.splitext(view_of_path(path)[1])[0], []).append(source)
                continue
            view = _one_view(source)
        except ScanError as error:
            rejected.append(Rejection(path, error.reason, str(error).removeprefix(f"{path}: ")))
            continue
        if view is None:
            scans.append(ScanFiles((source,), "."))
        else:
            single.append(view)
    # The views of a scan in pictures differ in the view only: S_ant.png and S_post.png.
    scans += [ScanFiles(tuple(sources), ".") for sources in pictures.values()]
    pairs, alone, unclear = pair_views(single)
    scans += [ScanFiles((pair.anterior.source, pair.posterior.source), ".") for pair in pairs]
    # A single view is left to `ScanFiles.read`, whose error names the option that allows it.
    scans += [ScanFiles((view.source,), ".") for view in alone]
    rejected += [
        Rejection(view.source.path, "ambiguous-pair", f"cannot be paired, since {why}") for view, why in unclear
    ]
    return ScanFolder(tuple(scans), tuple(rejected), tuple(passed))


def parse_shard(text: str) -> tuple[int, int]:
    """ "2/10" -> (2, 10).

    Raises:
        SettingsError: it is not the number of a part, from 1, and the number of parts.
    """
    part, slash, parts = text.partition("/")
    if not slash or not part.isdecimal() or not parts.isdecimal() or not 1 <= int(part) <= int(parts):
        raise SettingsError(f"--shard {text}: give PART/PARTS, for instance 1/4 to 4/4")
    return int(part), int(parts)


def choose_shard(found: ScanFolder, shard: tuple[int, int]) -> ScanFolder:
    """The part of some scans that one of several processes does. Each file is in exactly one part.

    The part follows from the names of a scan's files alone, so that the processes need not know of each other and files
    that arrive between their starts move no other scan. The two files of a pair stay together.

    Args:
        found: from `list_scans`; all processes must be given the same paths.
        shard: number of the part, from 1, and the number of parts.
    """
    part, parts = shard

    def mine(*names: str) -> bool:
        digest = hashlib.sha256("\0".join(map(printable, names)).encode()).digest()
        return int.from_bytes(digest[:8], "big") % parts == part - 1

    return ScanFolder(
        tuple(scan for scan in found.scans if mine(*scan.paths)),
        tuple(file for file in found.rejected if mine(file.path)),
        tuple(file for file in found.passed_over if mine(file.path)),
    )


def _results(path: str) -> set[str]:
    """The result folders below `path`, without `path` itself."""
    return {
        _folder(os.path.join(where, RESULT))
        for where, names in walk_folders(path)
        if RESULT in names and where != path and is_result(Path(where))
    }


def _without(found: ScanFolder, path: str, within: set[str]) -> ScanFolder:
    """What lies outside of the result folders `within`, with paths as the user gave them."""
    join = "!" if is_archive(path) else os.sep
    rejected = [Rejection(f"{path}{join}{file.path}", file.reason, file.message) for file in found.rejected]
    other = [PassedOver(f"{path}{join}{file.path}", file.kind) for file in found.passed_over]
    outs = {os.path.dirname(folder) for folder in within}
    beside = {os.path.join(out, name) for out in outs for name in (INDEX, COHORT)}
    beside |= {f"{out}{FILES_SUFFIX}" for out in outs}
    return ScanFolder(
        tuple(scan for scan in found.scans if _folder(scan.sources[0].path) not in within),
        tuple(file for file in rejected if _folder(file.path) not in within),
        tuple(file for file in other if _folder(file.path) not in within and file.path not in beside),
    )


def _folder(path: str) -> str:
    return os.path.normpath(os.path.dirname(path))


def _one_view(source: Source) -> OneView | None:
    """The view of a one-view file; None for a file with both."""
    with prefix_errors(source):
        file, layout = load_scan_header(source)
        return describe_view(source, file.dataset, layout) if layout.views == 1 else None


def scan_name(sources: Sequence[Source]) -> str:
    """How messages name a scan: its file, or its two."""
    return " + ".join(source.label for source in sources)
