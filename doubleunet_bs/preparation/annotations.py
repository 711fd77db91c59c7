"""Which annotation files belong to which scan, and what they say of it (paper, section 2.2).

For a scan in the file `S.dcm`: `S_anterior.json` and `S_posterior.json`, each drawn on one raw view, or `S.json`, drawn
on both raw views side by side or on the prepared image, distinguished by size. For a scan in two one-view files:
`FILE.json` for each as well. PNG masks may take the place of JSON files. A file may lie in any folder below the labels
folder. Where scans in several folders have one name, it must lie in the folder that is called like the scan's.

The regions of the skeleton are annotated in files of the same names, in a folder of their own. Labelme files use the
names of the regions. PNG masks use their numbers, 1 to 12, with 0 for what is not bone.
"""

import dataclasses
import difflib
import hashlib
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from doubleunet_bs.bsi.regions import REGION_LABELS, REGIONS, check_regions
from doubleunet_bs.constants import CROP_SHAPE, KEPT_ROWS, METASTATIC, NON_METASTATIC, RAW_SHAPE, VIEWS
from doubleunet_bs.dicom_files.sources import walk_files
from doubleunet_bs.errors import LabelError
from doubleunet_bs.preparation import geometry
from doubleunet_bs.preparation.case import PreparedCase
from doubleunet_bs.preparation.patients import Declaration
from doubleunet_bs.preparation.records import CaseRecord
from doubleunet_bs.scans.labelme import Drawing, read_labelme
from doubleunet_bs.scans.labels import IMAGE_KINDS, read_mask
from doubleunet_bs.scans.scan_files import ScanFiles

ENDINGS = (".json", ".png")
OTHER_PICTURE = "its annotation was drawn on the picture of another scan: check that it is its own"
SAME_OUTLINES = "its annotation has the same outlines as that of another scan: check that it is its own"
VIEW_WORDS = {"anterior": {"anterior", "ant", "ap"}, "posterior": {"posterior", "post", "pa"}}
PNG_ADVICE = 'if 1 means metastatic there, pass --classes with {"1": "metastatic"}'
LEAST_LIKENESS = 0.8


class NearNames:
    """The names of all scans, searched by what comes near. Names with other numbers are other scans: wb17 and wb18.

    Example:
        >>> near = NearNames(["patient11_ant", "patient11_post", "wb17"])
        >>> near.find("patient11"), near.find("WB-017"), near.find("wb17_postrior"), near.find("wb18")
        ('patient11_ant', 'wb17', 'wb17', None)
        >>> near.begins("wb17_a.png"), near.begins("wb170_a.png")
        ('wb17', None)
    """

    def __init__(self, names: Iterable[str]):
        self._names = {name.casefold(): name for name in sorted(names)}
        self._alike: defaultdict[tuple[int, ...], list[str]] = defaultdict(list)
        for name in self._names:
            self._alike[_numbers(name)].append(name)

    def begins(self, text: str) -> str | None:
        """The longest name that `text` begins with, as a whole word, if any."""
        text = text.casefold()
        for end in range(len(text), 0, -1):
            if text[:end] in self._names and not text[end : end + 1].isalnum():
                return self._names[text[:end]]
        return None

    def find(self, text: str) -> str | None:
        """The name that `text` begins with, or that begins with `text`, or the most similar one, if any."""
        if (first := self.begins(text)) is not None:
            return first
        text = text.casefold()
        alike = self._alike.get(_numbers(text), [])
        for name in alike:
            # Spreadsheets take the zeros from 0017.
            if (name.isdigit() and text.isdigit()) or (name.startswith(text) and not name[len(text)].isalnum()):
                return self._names[name]
        stems = {stem: name for name in alike for stem in (name, *(f"{name}_{view}" for view in VIEWS))}
        close = difflib.get_close_matches(text, stems, 1, LEAST_LIKENESS)
        return self._names[stems[close[0]]] if close else None


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(int(digits[:18]) for digits in re.findall(r"\d+", name))


def index_labels(
    folder: str | os.PathLike, names: Collection[str], leave_out: Collection[Path] = ()
) -> dict[str, list[Path]]:
    """Stem (see `annotation_stem`) -> annotation files of that stem, sorted, in a folder and all folders below it.

    `names` are those of all scans, `leave_out` files that are no annotations, for instance the class map.
    """
    out = {Path(path).resolve() for path in leave_out}
    found = defaultdict(list)
    for path in map(Path, walk_files(folder)):
        if not path.name.startswith(".") and path.suffix.lower() in ENDINGS and path.resolve() not in out:
            found[annotation_stem(path, names)].append(path)
    return dict(found)


def annotation_stem(path: Path, names: Collection[str]) -> str:
    """The file's name without its ending, accents composed and the view in small letters, as in `stems_of`."""
    stem = unicodedata.normalize("NFC", path.stem)
    name, _, view = stem.rpartition("_")
    return f"{name}_{view.lower()}" if view.lower() in VIEWS and stem not in names else stem


def stems_of(names: Sequence[str]) -> list[str]:
    """All stems that annotation files of a scan with these names can have."""
    # The two files of a scan may have one name, in two folders.
    return [stem for name in dict.fromkeys(names) for stem in (name, *(f"{name}_{view}" for view in VIEWS))]


@dataclasses.dataclass(frozen=True)
class Annotation:
    """The annotation of one scan.

    Attributes:
        lesions: as `prepare_scan` takes them; empty when there is no file.
        metastatic: whether any pixel is metastatic.
        warnings: one line each.
        pictures: names of the pictures that its files were drawn on, where they say so.
        shown: those pictures by place, as `lesions`: uint8 grey levels, where the files hold them.
        outlines: hash of the outlined pixels of each file that has any.
        non_metastatic_png: whether a PNG mask has outlines and none of them is metastatic.
        box_paths: how many boxes became masks by each way of `public_labels.PATHS`.
    """

    lesions: dict[str, np.ndarray]
    metastatic: bool
    warnings: tuple[str, ...]
    pictures: tuple[str, ...] = ()
    shown: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    outlines: tuple[str, ...] = ()
    non_metastatic_png: bool = False
    box_paths: tuple[int, ...] = ()


def read_annotation(
    names: Sequence[str], files: Sequence[Path], classes: Mapping[str, int], missing_views: Sequence[str] = ()
) -> Annotation:
    """Read the annotation of one scan.

    Args:
        names: of the scan's files: one, or two of one view each, the anterior one first. files: its annotations.
        classes: label -> class. missing_views: views the scan lacks.

    Raises:
        LabelError: files that cannot be read, all of them named; reason "label-ambiguous" when two files claim the same
            view, or a PNG lies beside a JSON file of its name.
    """
    drawn = {annotation_stem(path, names): path for path in files if path.suffix.lower() == ".json"}
    for path in files:
        beside = drawn.get(annotation_stem(path, names), path)
        if path.suffix.lower() == ".png" and beside is not path:
            message = f"{path}: may be the picture on which {beside.name} was drawn: move it out of the labels folder"
            raise LabelError(message, "label-ambiguous")
    lesions: dict[str, np.ndarray] = {}
    origin: dict[str, Path] = {}
    warnings, pictures, outlines, doubtful = [], [], [], False
    shown = {}
    for path, drawing in _read_files(files, classes):
        mask, picture = drawing.mask, drawing.picture_name
        place = _place(path, IMAGE_KINDS[mask.shape], names, missing_views)
        if drawing.picture is not None:
            shown[place] = drawing.picture
        if picture:
            pictures.append(picture)
            if place in VIEWS and _view_of_picture(picture, names) not in (None, place):
                other = next(view for view in VIEWS if view != place)
                warnings.append(f"the annotation of the {place} view was drawn on a picture of the {other} view")
        if mask.any():
            outlines.append(hashlib.sha256(np.packbits(mask > 0).tobytes()).hexdigest())
            doubtful |= path.suffix.lower() == ".png" and not (mask == METASTATIC).any()
        if place in lesions:
            raise LabelError(f"{path}: annotates the same as {origin[place].name}: keep one of them", "label-ambiguous")
        lesions[place], origin[place] = mask, path
    if len(lesions) > 1 and set(lesions) != set(VIEWS):
        message = f"{files[0]}: beside it there is {files[1].name}, drawn on another image: keep one of them"
        raise LabelError(message, "label-ambiguous")
    if len(set(outlines)) < len(outlines):
        warnings.append("both views have the same outlines: was one annotation copied?")
    metastatic = any((mask == METASTATIC).any() for mask in lesions.values())
    if doubtful and metastatic:
        warnings.append(f"a PNG mask has only class {NON_METASTATIC}, non-metastatic: {PNG_ADVICE}")
    absent = set(VIEWS) - set(lesions) - set(missing_views)
    if set(lesions) & set(VIEWS) and absent:
        warnings.append(f"no annotation file of the {absent.pop()} view: treated as free of lesions")
    return Annotation(lesions, metastatic, tuple(warnings), tuple(pictures), shown, tuple(outlines), doubtful)


def _read_files(files: Sequence[Path], classes: Mapping[str, int]) -> list[tuple[Path, Drawing]]:
    """Every file with its mask and, but for a PNG, its picture."""
    found, errors = [], []
    for path in files:
        try:
            if path.suffix.lower() == ".png":
                found.append((path, Drawing(read_mask(path, classes))))
            else:
                found.append((path, read_labelme(path, classes)))
        except LabelError as error:
            errors.append(error)
    if errors:
        raise LabelError("; ".join(map(str, errors)), errors[0].reason)
    return found


def _view_of_picture(picture: str, names: Sequence[str]) -> str | None:
    """The view that a picture is called after, None when it says none or both."""
    text = unicodedata.normalize("NFC", picture).casefold()
    for name in names:
        text = text.removeprefix(name.casefold()) if len(set(names)) == 1 else text
    words = set(re.split(r"[^a-z]+", text))
    said = [view for view, own in VIEW_WORDS.items() if words & own]
    return said[0] if len(said) == 1 else None


def warn_of_other_view(shown: Mapping[str, np.ndarray], views: Mapping[str, np.ndarray]) -> list[str]:
    """Warn of an annotation whose picture (`Annotation.shown`) looks more like the other of both views."""
    halves = dict(zip(VIEWS, np.hsplit(shown["side_by_side"], 2), strict=True)) if "side_by_side" in shown else shown
    if set(views) != set(VIEWS):
        return []
    warnings = []
    for view, other in (VIEWS, VIEWS[::-1]):
        if view in halves:
            own_likeness, other_likeness = (_likeness(halves[view], views[name]) for name in (view, other))
            if other_likeness > own_likeness:
                warnings.append(f"the picture inside the annotation of the {view} view shows the {other} view")
    return warnings


def _likeness(picture: np.ndarray, counts: np.ndarray) -> float:
    """Correlation of ranks, without sign: no display window or inversion changes it much. 0 for a blank picture."""
    ranks = []
    for values in (picture, counts):
        times = np.bincount(values.ravel())
        ranks.append((np.cumsum(times) - times / 2)[values.ravel()])
    centred = [rank - rank.mean() for rank in ranks]
    norm = float(np.linalg.norm(centred[0]) * np.linalg.norm(centred[1]))
    return abs(float(centred[0] @ centred[1])) / norm if norm else 0.0


def warn_of_mix_ups(
    cases: Sequence[CaseRecord], annotations: Sequence[tuple[ScanFiles, Annotation]]
) -> list[CaseRecord]:
    """Warn of scans whose annotation was drawn on the picture of another scan, or has the outlines of another scan."""
    names = NearNames({name for source, _ in annotations for name in source.names})
    times = Counter(outline for _, annotation in annotations for outline in set(annotation.outlines))
    found = []
    for case, (source, annotation) in zip(cases, annotations, strict=True):
        drawn_on = {names.begins(unicodedata.normalize("NFC", picture)) for picture in annotation.pictures}
        warnings = [OTHER_PICTURE] if drawn_on - {None, *source.names} else []
        warnings += [SAME_OUTLINES] if any(times[outline] > 1 for outline in annotation.outlines) else []
        found.append(dataclasses.replace(case, warnings=(*case.warnings, *warnings)) if warnings else case)
    return found


def decide_group(annotation: Annotation, declared: Declaration | None) -> str:
    """ "positive" or "negative", from the annotation and `patients.csv`.

    Raises:
        LabelError: "label-missing": neither annotated nor declared normal; "label-contradiction": they disagree.
    """
    says = declared.metastases if declared else None
    if says is not False and not annotation.metastatic and annotation.non_metastatic_png:
        message = f"its PNG mask has only class {NON_METASTATIC}, non-metastatic: {PNG_ADVICE}"
        raise LabelError(message, "label-contradiction" if says else "label-missing")
    if says is None and not annotation.metastatic:
        message = (
            "no metastasis is annotated: annotate the scan, or declare it normal with metastases=no in patients.csv"
        )
        raise LabelError(message, "label-missing")
    if says not in (None, annotation.metastatic):
        said, drawn = ("yes", "none") if says else ("no", "one")
        message = f"patients.csv says metastases={said}, but {drawn} is annotated: correct one of them"
        raise LabelError(message, "label-contradiction")
    return "positive" if annotation.metastatic else "negative"


def _place(path: Path, frame: str, names: Sequence[str], missing_views: Sequence[str]) -> str:
    stem = annotation_stem(path, names)
    suffix = next((view for view in VIEWS if any(stem == f"{name}_{view}" for name in names)), None)
    if suffix and frame != "view":
        raise LabelError(f"{path}: named after one view, but the image is not 1024 x 256: rename it", "label-frame")
    if suffix or frame != "view":
        return suffix or frame
    if len(set(names)) == 2:
        return VIEWS[list(names).index(stem)]
    if len(missing_views) == 1:
        return next(view for view in VIEWS if view not in missing_views)
    names = " or ".join(f"{path.stem}_{view}{path.suffix}" for view in VIEWS)
    raise LabelError(f"{path}: drawn on one view: rename it to {names}", "label-frame")


_CLASSES = {**REGION_LABELS, **{str(region.number): region.number for region in REGIONS}}


def read_regions(
    names: Sequence[str], files: Sequence[Path], missing_views: Sequence[str] = ()
) -> dict[str, np.ndarray] | None:
    """Read the regions of one scan.

    Args:
        names: of the scan's files. files: its region annotations. missing_views: views the scan lacks.

    Returns:
        "anterior" and "posterior" in raw-view coordinates, but for missing views; or their crops, (640, 256), when the
        regions were drawn on the prepared image. None without files.

    Raises:
        LabelError: as `read_annotation`; an unknown region; a view that is not annotated; a posterior sternum.
    """
    if not files:
        return None
    try:
        drawn = read_annotation(names, files, _CLASSES, missing_views).lesions
    except LabelError as error:
        if error.reason != "label-unknown":
            raise
        # Its own advice is to change the class map, which regions do not have.
        what = str(error).split(", which the class map lacks")[0].split(" has no class")[0]
        message = f"{what}, which is no region: use the names or numbers 1 to 12 of assets/docs/bsi.md"
        raise LabelError(message, "region-unknown") from None
    views = {}
    for place, mask in drawn.items():
        if place in VIEWS:
            views[place] = mask
        else:
            half = mask.shape[1] // 2
            views |= {"anterior": mask[:, :half], "posterior": mask[:, half:]}
    for view in VIEWS:
        if view in missing_views:
            if views.pop(view, np.zeros(1)).any():
                raise LabelError(f"regions of the {view} view are drawn, but the scan lacks it", "label-missing-view")
        elif view not in views or not views[view].any():
            raise LabelError(
                f"{_file_of(view, files)}: the {view} view has no regions: draw both views", "region-missing-view"
            )
    try:
        check_regions(views)
    except LabelError as error:
        # Numbers were checked on reading: what is left is a posterior sternum.
        raise LabelError(f"{_file_of('posterior', files)}: {error}", error.reason) from None
    return views


def _file_of(view: str, files: Sequence[Path]) -> Path:
    """The file that is named after a view; the first one where none is, as with both views in one file."""
    return next((file for file in files if view in file.stem.casefold()), files[0])


def prepare_regions(case: PreparedCase, regions: Mapping[str, np.ndarray]) -> np.ndarray:
    """The regions of a prepared image, from those of `read_regions`.

    Returns:
        uint8 array of the shape of `case.counts`: 0 not bone, 1 to 12. With binning, the most frequent number of each
        block, of equally frequent ones the smallest.
    """
    halves = []
    for view in VIEWS:
        mask = regions.get(view, np.zeros((KEPT_ROWS, CROP_SHAPE[1]), np.uint8))
        halves.append(geometry.crop(mask, case.placements[view], KEPT_ROWS) if mask.shape == RAW_SHAPE else mask)
    merged = geometry.merge(*halves)
    bin = case.settings.bin
    if bin == 1:
        return merged
    rows, columns = merged.shape
    blocks = merged.reshape(rows // bin, bin, columns // bin, bin)
    frequency = np.stack([(blocks == number).sum(axis=(1, 3)) for number in range(len(REGIONS) + 1)])
    return frequency.argmax(axis=0).astype(np.uint8)
