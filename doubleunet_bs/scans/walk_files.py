"""Every file that may be a scan: in a folder, its subfolders and its zip archives."""

import os
import zipfile
from collections.abc import Callable, Iterator

from doubleunet_bs.dicom_files.other_files import kind_by_name, kind_of_package
from doubleunet_bs.dicom_files.sources import Source, is_archive, list_members, open_archive, walk_folders
from doubleunet_bs.errors import ScanError, os_reason


def walk_files(
    folder: str, reject: Callable[[Source, ScanError], None], pass_over: Callable[[Source, str], None]
) -> Iterator[tuple[Source, zipfile.ZipFile | None]]:
    """Every file once, in the order of paths; members of an archive with the open archive."""
    for path in _files(folder, reject, pass_over):
        if not is_archive(path):
            yield Source(path), None
            continue
        try:
            archive = open_archive(path)
        except ScanError as error:
            reject(Source(path), error)
            continue
        with archive:
            members = list_members(archive)
            if kind := kind_of_package(members):
                pass_over(Source(path), kind)
                continue
            for member in members:
                source = Source(path, member)
                if kind := kind_by_name(source.steps):
                    pass_over(source, kind)
                else:
                    yield source, archive


def _files(
    folder: str, reject: Callable[[Source, ScanError], None], pass_over: Callable[[Source, str], None]
) -> Iterator[str]:
    if not os.path.isdir(folder):
        yield folder
        return

    def unreadable(error: OSError) -> None:
        reject(Source(str(error.filename)), ScanError(f"cannot be read ({os_reason(error)})", "unreadable"))

    def left_out(path: str) -> None:
        pass_over(Source(path), kind_by_name([os.path.basename(path)]) or "hidden file")

    for where, names in walk_folders(folder, unreadable, left_out):
        for name in names:
            path = os.path.join(where, name)
            if kind := kind_by_name([name]):
                pass_over(Source(path), kind)
            else:
                yield path
