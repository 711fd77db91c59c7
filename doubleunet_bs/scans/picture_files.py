"""Grey pictures as scans: PNG or JPEG files of one view each, or with both views side by side.

Pictures show display grey and not counts: they have no pixel spacing, and what was brighter than white is lost. The
views of a scan are two files that differ in the view only, by name or by folder: `S_ant.png` and `S_post.png`,
`wholeBodyANT/5.jpg` and `wholeBodyPOST/5.jpg`, `Anterior/A5.png` and `Posterior/P5.png`.
"""

import contextlib
import io
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

from doubleunet_bs.constants import RAW_SHAPE
from doubleunet_bs.dicom_files.layout import SHAPES
from doubleunet_bs.dicom_files.pixels import bin_counts
from doubleunet_bs.dicom_files.sources import Source, prefix_errors
from doubleunet_bs.dicom_files.views import ANTERIOR, POSTERIOR
from doubleunet_bs.errors import ScanError
from doubleunet_bs.scans.labels import PNG_ERRORS, open_picture

SUFFIXES = (".png", ".jpg", ".jpeg")
PICTURE_WARNING = "made of pictures: display grey instead of counts, areas in pixels only"
LEAST_SATURATED = 1e-3
"""Part of the pixels that are not black; more white ones than this are said."""

MASK_LEVELS = 3
"""Grey levels that a mask has at most, with black: background, non-metastatic, metastatic."""

_MARKS = (b"\x89PNG", b"\xff\xd8\xff")
_MASK_MODES = ("1", "L", "P", "RGB")
# As a word, or in capitals at the end of one: S_ant, Anterior, wholeBodyANT. Not: giant, Santos.
_WORDS = {
    ANTERIOR: re.compile(r"(?<![a-z])(?:anterior|ant)(?![a-z])|ANT(?:ERIOR)?(?![a-zA-Z])|Anterior"),
    POSTERIOR: re.compile(r"(?<![a-z])(?:posterior|post)(?![a-z])|POST(?:ERIOR)?(?![a-zA-Z])|Posterior"),
}
_LETTERS = {ANTERIOR: re.compile(r"[aA](?=\d+\.\w+$)"), POSTERIOR: re.compile(r"[pP](?=\d+\.\w+$)")}


def is_picture(source: Source) -> bool:
    """Whether the file begins as a PNG or JPEG does."""
    return source.read(4)[0].startswith(_MARKS)


def _opened(source: Source) -> contextlib.AbstractContextManager[Image.Image]:
    return open_picture(io.BytesIO(source.read()[0]), ("PNG", "JPEG"))


def describe_picture(source: Source) -> tuple[int, int]:
    """How many views a picture of its size holds, and its grey levels if they are few.

    Returns:
        1 or 2, or 0 for a picture that is no scan, or damaged. And 1 for a blank picture of the size of a scan, 2 or 3
        for one with the levels of a mask, 0 for any other.

    Raises:
        ScanError: "unreadable".
    """
    with contextlib.suppress(*PNG_ERRORS), _opened(source) as picture:
        if (picture.height, picture.width) not in SHAPES:
            return 0, 0
        side_by_side, _ = SHAPES[picture.height, picture.width]
        views, levels = 1 + side_by_side, 0
        if picture.format == "PNG" and picture.mode in _MASK_MODES:
            with contextlib.suppress(*PNG_ERRORS):
                levels = len(picture.convert("RGB").getcolors(MASK_LEVELS) or ())
        return views, levels
    return 0, 0


def view_of_path(path: str) -> tuple[str | None, str]:
    """The view that a path names, "anterior" or "posterior", and what is left of the path without it.

    Two pictures with the same rest are the views of one scan. None: no view is named, or both.

    Example:
        >>> view_of_path("wholeBodyPOST/5.jpg"), view_of_path("Anterior/A5.png"), view_of_path("santos.png")
        (('posterior', 'wholeBody/5.jpg'), ('anterior', '/5.png'), (None, 'santos.png'))
    """
    folder, slash, name = path.rpartition("/")
    for text, rest in ((name, f"{folder}{slash}{{}}"), (folder, f"{{}}{slash}{name}")):
        named = [view for view, word in _WORDS.items() if word.search(text) or word.search(text.lower())]
        if len(named) == 1:
            [view] = named
            word = _WORDS[view]
            left = rest.format(word.sub("", text) if word.search(text) else word.sub("", text.lower()))
            if text is folder:
                before, after = left[: len(left) - len(name)], name
                left = before + _LETTERS[view].sub("", after, count=1)
            return view, left
    return None, path


def read_pictures(sources: Sequence[Source]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The views in one or two pictures.

    Returns:
        "anterior" and "posterior" -> uint16 grey levels of shape (1024, 256); and warnings. One view alone may be
        missing.

    Raises:
        ScanError: not readable, in colour, dark on white, of another size, or two pictures of one view.
    """
    read = []
    for source in sources:
        with prefix_errors(source):
            read.append(_read_grey(source))
    said = [PICTURE_WARNING]
    if len(read) == 2:
        named = [view_of_path(source.path.replace("\\", "/"))[0] for source in sources]
        with prefix_errors(sources[0]):
            if any(image.shape != RAW_SHAPE for image in read):
                raise ScanError("two pictures must have one view of 1024 x 256 pixels each", "wrong-matrix")
            if named[0] is not None and named[0] == named[1]:
                raise ScanError(f"both pictures are named after the {named[0]} view", "same-view")
        if None in named and set(named) == {None}:
            said.append("the names of the pictures tell no view: the first is taken as anterior")
        exchanged = named[0] == POSTERIOR or named[1] == ANTERIOR
        views = dict(zip((ANTERIOR, POSTERIOR), read[::-1] if exchanged else read, strict=True))
    elif read[0].shape == (RAW_SHAPE[0], 2 * RAW_SHAPE[1]):
        said.append("both views lie side by side in one picture: the left half is taken as anterior")
        views = dict(zip((ANTERIOR, POSTERIOR), np.hsplit(read[0], 2), strict=True))
    else:
        view = view_of_path(sources[0].path.replace("\\", "/"))[0]
        if view is None:
            message = f"{sources[0].label}: its name tells no view: add _anterior or _posterior"
            raise ScanError(message, "missing-view")
        views = {view: read[0]}
    for view, image in views.items():
        bright = np.count_nonzero(image == image.max()) / np.count_nonzero(image)
        if image.max() in (255, 65535) and bright > LEAST_SATURATED:
            said.append(f"{bright:.1%} of the pixels of the {view} view are saturated: uptake above white is lost")
    return views, said


def _read_grey(source: Source) -> np.ndarray:
    try:
        with _opened(source) as picture:
            shape = picture.height, picture.width
            if shape not in SHAPES:
                message = f"is a picture of {shape[0]} x {shape[1]} pixels: a view has 1024 x 256"
                raise ScanError(message, "wrong-matrix")
            if picture.mode == "RGB":
                channels = np.asarray(picture)
                if (channels != channels[..., :1]).any():
                    raise ScanError("is a picture in colour: save it in grey", "colour")
                grey = channels[..., 0]
            elif picture.mode in ("L", "I;16", "I;16B", "I"):
                grey = np.asarray(picture)
            else:
                raise ScanError(f"is a picture of mode {picture.mode}: save it in grey of 8 or 16 bits", "colour")
    except PNG_ERRORS as cause:
        raise ScanError(f"is a damaged picture ({type(cause).__name__})", "damaged-pixels") from None
    if grey.min(initial=0) < 0 or grey.max(initial=0) > 65535:
        raise ScanError("is a picture with values outside of 16 bits", "colour")
    grey = np.ascontiguousarray(grey, dtype=np.uint16)
    if not grey.any():
        raise ScanError("is a black picture", "blank")
    if describe_picture(source)[1]:
        raise ScanError("has the few grey levels of a mask: give the picture of the scan", "mask")
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if np.median(border) > int(grey.max()) / 2:
        raise ScanError("is dark on white: invert the picture, hot must be bright", "inverted")
    return bin_counts(grey, SHAPES[shape][1])
