"""Folders -> scans that are grey pictures, with a reason for every picture refused."""

import os

from doubleunet_bs.dicom_files.other_files import kind_by_name
from doubleunet_bs.dicom_files.sources import Source, walk_files
from doubleunet_bs.dicom_files.views import ANTERIOR, POSTERIOR
from doubleunet_bs.errors import ScanError
from doubleunet_bs.files import no_folder
from doubleunet_bs.scans.picture_files import SUFFIXES, describe_picture, view_of_path
from doubleunet_bs.scans.scan_files import ScanFiles, ScanFolder, Search


def find_pictures(
    folder: str | os.PathLike, allow_missing_view: bool = False, others_beside: bool = False
) -> ScanFolder:
    """Find scans that are grey pictures (see `doubleunet_bs.scans.picture_files`) in a folder and its subfolders.

    With `others_beside` what is no pair by name, no view by name and size, and has not the size of two views is passed
    over. `allow_missing_view` accepts a view alone. `SettingsError`: there is no such folder.
    """
    folder = str(folder)
    if not os.path.isdir(folder):
        raise no_folder(folder)
    search = Search(folder)
    pairs: dict[str, dict[str, tuple[Source, int]]] = {}

    def take(source: Source, views: int, least: int, problem: ScanError | None = None) -> None:
        """A scan in one picture, or its problem; a picture with fewer than the `least` views may be none."""
        if others_beside and views < least:
            search.pass_over(source, "picture")
        elif problem is not None:
            search.reject(source, problem)
        else:
            search.scans.append(ScanFiles((source,), folder))

    for source in map(Source, walk_files(folder)):
        name = os.path.basename(source.path)
        if not name.lower().endswith(SUFFIXES):
            other = "zip archive" if name.lower().endswith(".zip") else "other file"
            search.pass_over(source, kind_by_name([name]) or other)
            continue
        try:
            views, levels = describe_picture(source)
        except ScanError as error:
            search.reject(source, error)
            continue
        if levels > 1 or (levels and others_beside):
            search.pass_over(source, "mask" if levels > 1 else "blank picture")
            continue
        view, rest = view_of_path(search.relative(source))
        if view is None:
            take(source, views, least=2)
        elif view not in (found := pairs.setdefault(os.path.splitext(rest)[0], {})):
            found[view] = source, views
        else:
            message = f"shows the {view} view, as does {search.relative(found[view][0])}: keep one of the two"
            take(source, views, 1, ScanError(message, "ambiguous-pair"))
    for found in pairs.values():
        if len(found) == 2:
            search.scans.append(ScanFiles((found[ANTERIOR][0], found[POSTERIOR][0]), folder))
            continue
        [(view, (source, views))] = found.items()
        message = f"shows the {view} view only: the picture of the other view is missing"
        take(source, views, 1, None if allow_missing_view else ScanError(message, "missing-view"))
    return search.result()
