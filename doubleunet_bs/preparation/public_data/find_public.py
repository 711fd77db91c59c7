"""Public data sets as they come out of their archives -> what `prepare_cohort` takes. Nothing is downloaded here."""

import dataclasses
import os
import re
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path

from doubleunet_bs.constants import VIEWS
from doubleunet_bs.dicom_files.sources import Source
from doubleunet_bs.errors import DatasetError, SettingsError, counted
from doubleunet_bs.files import no_folder
from doubleunet_bs.preparation.find_inputs import Inputs, Task
from doubleunet_bs.preparation.patients import Declaration
from doubleunet_bs.preparation.public_data import data_sets
from doubleunet_bs.preparation.public_data.data_sets import DATASETS, RECTANGLES, UNUSED, WEAK
from doubleunet_bs.preparation.public_data.labels import BoxLabels, ClassLabels, MaskLabels, SkeletonLabels
from doubleunet_bs.preparation.public_data.manifest import check_files, is_hotspot, number_of, read_manifest, split_of
from doubleunet_bs.preparation.public_data.pictures import find_pictures_of_bs80k, read_text, subfolder, tasks_of
from doubleunet_bs.preparation.records import PARTS, DataSource
from doubleunet_bs.scans.scan_files import Rejection, ScanFiles

_XML = re.compile(r"0*([1-9]\d*)\.xml", re.IGNORECASE)
_PNG = re.compile(r"0*([1-9]\d*)\.png", re.IGNORECASE)
BOX_FOLDERS = {"anterior": "ant", "posterior": "post"}
_NUMBERED_VIEW = {view: re.compile(rf"{view[0]}0*(\d+)\.png", re.IGNORECASE) for view in VIEWS}
# The letters of a folder's name. What says neither is refused: "metastasis-free" is no metastasis.
_METASTASES = "(bone|osea)?(metastas[ei]s|metastatic[oa]?)(osea|oseas)?"
_WITH = re.compile(f"(with|con)?{_METASTASES}|positiv[eo]")
_WITHOUT = re.compile(f"(no|non|not|without|sin){_METASTASES}|normal|negativ[eo]")


@dataclasses.dataclass(frozen=True)
class PublicInputs:
    """What the folders of a public data set hold.

    Attributes:
        inputs: its scans; `rejected` is what stands in the way.
        left_out: what is known of the data set and cannot be corrected: pictures that do not open, double patients.
        sources: for the shards.
    """

    inputs: Inputs
    left_out: tuple[Rejection, ...]
    sources: tuple[DataSource, ...]


def find_public(name: str, scans: Path, labels: Path, boxes: str = "masks") -> PublicInputs:
    """Search the folders of a public data set and check what is in them.

    Args:
        name: of the data set.
        scans: folder of the pictures, as it came out of its archive.
        labels: folder of the masks; not looked at for "bs80k" and "paraguay".
        boxes: "masks" or "rectangles".

    Raises:
        SettingsError: no such data set or folder.
        DatasetError: a table is missing or damaged, or the folder is of something else.
    """
    if name not in DATASETS:
        raise SettingsError(f"--dataset {name}: must be one of {', '.join(DATASETS)}")
    for folder in (scans, labels):
        if not folder.is_dir():
            raise no_folder(folder)
    if name == data_sets.BS80K.name:
        return _bs80k(scans, boxes)
    if name == data_sets.PARAGUAY.name:
        return _paraguay(scans)
    return _bs80k_masks(scans, labels) if name == data_sets.BS80K_MASKS.name else _bs80k_skeleton(scans, labels)


def _bs80k(scans: Path, boxes: str) -> PublicInputs:
    pictures = find_pictures_of_bs80k(scans)
    files: defaultdict[int, dict[str, Path]] = defaultdict(dict)
    for view, wanted in data_sets.BS80K.folders.items():
        folder = subfolder(subfolder(scans, wanted), BOX_FOLDERS[view])
        for name in sorted(os.listdir(folder)):
            if found := _XML.fullmatch(name):
                files[int(found[1])][view] = folder / name
    numbers = {*pictures.files, *files, *pictures.abnormal}
    labels = {
        number: BoxLabels(files.get(number, {}), pictures.abnormal.get(number, {}), boxes == "rectangles")
        for number in numbers
    }
    tasks, rejected, left_out = tasks_of(pictures, labels, dict.fromkeys(numbers))
    remarks = (WEAK,) if boxes == "masks" else (RECTANGLES,)
    return PublicInputs(
        Inputs(tuple(tasks), tuple(sorted(rejected, key=dataclasses.astuple)), (), tuple(pictures.notes)),
        tuple(left_out),
        (data_sets.BS80K.source(pictures.whole, *remarks),),
    )


def _bs80k_skeleton(scans: Path, folder: Path) -> PublicInputs:
    """Scans whose skeleton is drawn in both views. One that is tested in either view never trains."""
    pictures = find_pictures_of_bs80k(scans)
    notes = [*pictures.notes]
    files: defaultdict[int, dict[str, Path]] = defaultdict(dict)
    parts: defaultdict[int, set[str]] = defaultdict(set)
    for view in VIEWS:
        place = subfolder(subfolder(folder, "masks"), view)
        for name in sorted(os.listdir(place)):
            if found := _PNG.fullmatch(name):
                files[int(found[1])][view] = place / name
        number = sum(view in views for views in files.values())
        if number != data_sets.SKELETONS[view]:
            notes.append(
                f"{data_sets.SKELETONS[view]:,} skeletons of the {view} view expected, {number:,} are in {place}"
            )
        lists = subfolder(subfolder(folder, "splits"), view)
        for part, name in (("train", "train.txt"), ("validation", "val.txt"), ("test", "test.txt")):
            for word in read_text(lists / name).split():
                if not (found := _PNG.fullmatch(f"{word.removesuffix('.png')}.png")):
                    raise DatasetError(f"{lists / name}: {word[:20]!r} is no number of a patient")
                parts[int(found[1])].add(part)
    several = sum(len(own) > 1 for own in parts.values())
    if several:
        notes.append(f"{counted(several, 'patient')} in other parts by view: test goes before validation and training")
    part_of = {
        number: next(part for part in PARTS if part in parts[number])
        for number, views in files.items()
        if len(views) == len(VIEWS) and parts.get(number)
    }
    if len(part_of) < len(files):
        notes.append(f"{counted(len(files) - len(part_of), 'skeleton')} of one view alone or of no part left out")
    tasks, rejected, left_out = tasks_of(
        pictures, {number: SkeletonLabels(files[number]) for number in part_of}, part_of
    )
    whole = pictures.whole and all(
        sum(view in views for views in files.values()) == number for view, number in data_sets.SKELETONS.items()
    )
    return PublicInputs(
        Inputs(tuple(tasks), tuple(sorted(rejected, key=dataclasses.astuple)), (), tuple(notes)),
        tuple(left_out),
        (data_sets.BS80K_SKELETON.source(whole), data_sets.BS80K.source(whole)),
    )


def _bs80k_masks(scans: Path, folder: Path) -> PublicInputs:
    pictures = find_pictures_of_bs80k(scans)
    rows = read_manifest(folder)
    split = split_of(rows, folder)
    files, rejected = check_files(folder, rows)
    bad = {number for (number, _), path in files.items() if path is None}
    labels = {
        number: MaskLabels(
            {view: path for view in VIEWS if (path := files.get((number, view))) is not None},
            pictures.abnormal.get(number, {}),
        )
        for number, part in split.items()
        if part != UNUSED and number not in bad
    }
    part_of = {number: part for number, part in split.items() if part != UNUSED}
    tasks, missing, left_out = tasks_of(pictures, labels, part_of)
    notes = [*pictures.notes]
    counts = Counter(split.values())
    for part, number in data_sets.BS80K_MASKS.parts.items():
        if counts[part] != number:
            notes.append(f"the {part} part has {number:,} cases, {counts[part]:,} are in manifest.csv")
    if counts[UNUSED]:
        notes.append(f"{counted(counts[UNUSED], 'case')} of no part of the split left out")
    whole = counts == Counter(data_sets.BS80K_MASKS.parts) and pictures.whole
    used = Counter(row["source"] for row in rows if number_of(row) in part_of and is_hotspot(row))
    made = "Hot-spot masks by their source: " + ", ".join(f"{used[name]:,} {name}" for name in sorted(used)) + "."
    return PublicInputs(
        Inputs(tuple(tasks), tuple(sorted((*rejected, *missing), key=dataclasses.astuple)), (), tuple(notes)),
        tuple(left_out),
        (data_sets.BS80K_MASKS.source(whole, made), data_sets.BS80K.source(whole)),
    )


def _paraguay(scans: Path) -> PublicInputs:
    """Scans of patients with and without metastases, none of which is outlined."""
    root, tasks, rejected = subfolder(scans, "images"), [], []
    seen: Counter[bool] = Counter()
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        metastases = _has_metastases(folder.name)
        if metastases is None:
            message = "says neither 'metastasis' nor 'no metastasis': rename it to what its patients have"
            rejected.append(Rejection(str(folder.relative_to(scans)), "unknown-class", message))
            continue
        labels = ClassLabels(metastases)
        files: defaultdict[int, dict[str, Path]] = defaultdict(dict)
        for view in VIEWS:
            place = subfolder(folder, view)
            for name in sorted(os.listdir(place)):
                if found := _NUMBERED_VIEW[view].fullmatch(name):
                    files[int(found[1])][view] = place / name
        for number, views in sorted(files.items()):
            seen[metastases] += 1
            if absent := [view for view in VIEWS if view not in views]:
                [there] = [str(path.relative_to(scans)) for path in views.values()]
                rejected.append(Rejection(there, "missing-view", f"has no picture of the {absent[0]} view beside it"))
                continue
            pair = ScanFiles(tuple(Source(str(views[view])) for view in VIEWS), str(scans))
            patient = f"{data_sets.PARAGUAY.name} {folder.name}/{number}"
            declared = Declaration(patient, None, metastases)
            tasks.append(Task(pair, (), declared, public=labels))
    notes = []
    ill = data_sets.PARAGUAY_METASTASES
    for metastases, wanted in ((True, ill), (False, data_sets.PARAGUAY.patients - ill)):
        if seen[metastases] != wanted:
            kind = "with" if metastases else "without"
            notes.append(f"{wanted} patients {kind} metastases expected, {seen[metastases]} are in {root.name}")
    source = data_sets.PARAGUAY.source(whole=not notes and not rejected)
    return PublicInputs(Inputs(tuple(tasks), tuple(rejected), (), tuple(notes)), (), (source,))


def _has_metastases(name: str) -> bool | None:
    """What the name of a folder of patients says; None: neither."""
    plain = unicodedata.normalize("NFKD", name).lower()
    letters = "".join(letter for letter in plain if letter.isascii() and letter.isalpha())
    return True if _WITH.fullmatch(letters) else False if _WITHOUT.fullmatch(letters) else None
