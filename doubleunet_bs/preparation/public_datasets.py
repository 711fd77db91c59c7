"""Public data sets as they come out of their archives -> what `prepare_cohort` takes.

Each has one description: its layout, what must be in it, its licence and its citation. Nothing is downloaded here.
"""

import csv
import dataclasses
import hashlib
import io
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from doubleunet_bs.constants import VIEWS
from doubleunet_bs.errors import DatasetError, ScanError, SettingsError, counted, os_reason
from doubleunet_bs.files import no_folder
from doubleunet_bs.preparation.data_source import DataSource
from doubleunet_bs.preparation.find_inputs import Inputs, PublicLabels, Task
from doubleunet_bs.preparation.patients import Declaration
from doubleunet_bs.preparation.public_labels import BoxLabels, MaskLabels, SkeletonLabels
from doubleunet_bs.preparation.records import PARTS
from doubleunet_bs.scans.labels import decode_text
from doubleunet_bs.scans.scan_files import Rejection, ScanFiles, read_scan
from doubleunet_bs.scans.sources import Source, walk_folders

WEAK = "Weak labels: the masks were made from boxes by a rule, not drawn, so a score says how well that rule is met."
RECTANGLES = "Weak labels: the masks are boxes around the hot spots, so no score on them is a score of outlines."
UNUSED = "unused"
_NUMBERED = re.compile(r"0*([1-9]\d*)\.jpe?g", re.IGNORECASE)
_XML = re.compile(r"0*([1-9]\d*)\.xml", re.IGNORECASE)
_PNG = re.compile(r"0*([1-9]\d*)\.png", re.IGNORECASE)
_COLUMNS = {"mask_set", "patient_id", "view", "file", "source", "split", "sha256"}


@dataclasses.dataclass(frozen=True)
class PublicDataset:
    """What is known of a public data set.

    Attributes:
        name: as `prepare --dataset` takes it.
        licence, citation, remarks: see `DataSource`.
        patients: how many there are.
        parts: cases of each part of its published split.
        folders: "anterior" and "posterior" -> folder of the pictures of that view, called `N.jpg`.
        damaged: numbers of patients some of whose pictures do not open.
        doubles: pairs of numbers that are one patient.
        children: numbers of patients who are children.
    """

    name: str
    licence: str
    citation: str
    remarks: tuple[str, ...] = ()
    patients: int = 0
    parts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    folders: Mapping[str, str] = dataclasses.field(default_factory=dict)
    damaged: frozenset[int] = frozenset()
    doubles: tuple[tuple[int, int], ...] = ()
    children: frozenset[int] = frozenset()

    def source(self, whole: bool, *remarks: str) -> DataSource:
        """What results say of it."""
        return DataSource(self.name, self.licence, self.citation, (*self.remarks, *remarks), whole)


BS80K = PublicDataset(
    "bs80k",
    licence="none stated",
    citation="Huang et al. 2022, BS-80K, doi:10.1016/j.compbiomed.2022.106221",
    patients=3247,
    folders={"anterior": "wholeBodyANT", "posterior": "wholeBodyPOST"},
    damaged=frozenset({722, 779, 1654}),
    doubles=((312, 570), (828, 2244), (831, 3216), (832, 3245)),
    children=frozenset({1240}),
)
BS80K_MASKS = PublicDataset(
    "bs80k-masks",
    licence="CC BY 4.0",
    citation="masks for BS-80K, doi:10.5281/zenodo.23190333",
    remarks=(WEAK,),
    parts={"train": 2340, "validation": 292, "test": 293, UNUSED: 322},
)
BS80K_SKELETON = PublicDataset(
    "bs80k-skeleton",
    licence="CC BY-SA 4.0",
    citation="skeletons for BS-80K, doi:10.5281/zenodo.20342310",
)
SKELETONS = {"anterior": 1841, "posterior": 1752}
DATASETS = {one.name: one for one in (BS80K_MASKS, BS80K, BS80K_SKELETON)}
BOX_FOLDERS = {"anterior": "ant", "posterior": "post"}


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
        labels: folder of the masks; not looked at for "bs80k".
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
    if name == BS80K.name:
        return _bs80k(scans, boxes)
    return _bs80k_masks(scans, labels) if name == BS80K_MASKS.name else _bs80k_skeleton(scans, labels)


# --- the pictures of BS-80K


@dataclasses.dataclass
class _Pictures:
    """Number of a patient -> view -> picture; the same for what the tables call abnormal; and lines for the user."""

    root: Path
    files: dict[int, dict[str, Path]]
    abnormal: dict[int, dict[str, bool]]
    notes: list[str]

    def files_of(self, number: int) -> ScanFiles:
        return ScanFiles(tuple(Source(str(self.files[number][view])) for view in VIEWS), str(self.root))

    def called_abnormal(self, number: int) -> bool | None:
        said = self.abnormal.get(number, {})
        return True if any(said.values()) else False if set(said) == set(VIEWS) else None

    @property
    def whole(self) -> bool:
        """Whether every patient is there; who is known to be damaged need not have pictures."""
        return len({*self.files, *(BS80K.damaged & set(self.abnormal))}) >= BS80K.patients

    def pixels(self, number: int) -> str | None:
        """Hash of the pixels; None when the pictures do not open."""
        try:
            return read_scan([self.files[number][view] for view in VIEWS]).pixel_sha256
        except (ScanError, KeyError):
            return None


def _bs80k_pictures(root: Path) -> _Pictures:
    files: defaultdict[int, dict[str, Path]] = defaultdict(dict)
    abnormal: defaultdict[int, dict[str, bool]] = defaultdict(dict)
    notes = []
    for view, wanted in BS80K.folders.items():
        folder = _subfolder(root, wanted)
        names = {name.lower(): name for name in sorted(os.listdir(folder))}
        for name in names.values():
            found = _NUMBERED.fullmatch(name)
            if found:
                files[int(found[1])][view] = folder / name
        table = names.get(f"{wanted.lower()}.txt")
        if table is None:
            raise DatasetError(f"{folder}: {wanted}.txt is missing: it says which pictures are normal")
        for line, text in enumerate(_read_text(folder / table).splitlines(), start=1):
            name, _, said = text.strip().partition("\t")
            found = _NUMBERED.fullmatch(name.strip())
            if not text.strip():
                continue
            if not found or said.strip() not in ("0", "1"):
                raise DatasetError(f"{folder / table}: line {line} is not NAME.jpg, a tab and 0 or 1")
            abnormal[int(found[1])][view] = said.strip() == "1"
    if len(files) != BS80K.patients:
        notes.append(f"{BS80K.name} has {BS80K.patients:,} patients, {len(files):,} are in {root.name}")
    differ = sum(len(set(said.values())) == 2 for said in abnormal.values())
    if differ:
        notes.append(f"{counted(differ, 'patient')} abnormal in one view alone")
    return _Pictures(root, dict(files), dict(abnormal), notes)


def _subfolder(root: Path, wanted: str) -> Path:
    """A folder of this name, in capitals or not, in `root` or one folder further down."""
    for place in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        for path in sorted(place.iterdir()):
            if path.name.lower() == wanted.lower() and path.is_dir():
                return path
    raise DatasetError(f"{root}: has no folder {wanted}: give the folder that came out of the archive")


def _read_text(path: Path) -> str:
    try:
        return decode_text(path.read_bytes())
    except ValueError as cause:
        raise DatasetError(f"{path}: is {cause}") from None
    except OSError as cause:
        raise DatasetError(f"{path}: cannot be read ({os_reason(cause)})") from None


def _without_doubles(pictures: _Pictures, part_of: Mapping[int, str | None]) -> tuple[dict[int, str], list[Rejection]]:
    """Number -> name of the patient, and the scans left out because their patient stands under another number, too.

    Of a patient in two parts of the split the scan in the training (or validation) part is left out, so that the test
    part stays as published.
    """
    patients = {number: f"{BS80K.name} {number}" for number in part_of}
    left_out = []
    order = (*PARTS, None)
    for pair in BS80K.doubles:
        if not set(pair) <= set(part_of):
            continue
        patients[pair[1]] = patients[pair[0]]
        kept, other = sorted(pair, key=lambda number: (order.index(part_of[number]), number))
        hashes = {pictures.pixels(number) for number in pair}
        if len(hashes) == 1 and None not in hashes:
            message = f"is the same scan as {kept}: left out"
        elif part_of[kept] != part_of[other]:
            message = f"is the patient of {kept} in the {part_of[kept]} part: left out of the {part_of[other]} part"
        else:
            continue
        del patients[other]
        left_out.append(Rejection(pictures.files_of(other).paths[0], "double-patient", message))
    return patients, left_out


def _tasks(
    pictures: _Pictures, labels: Mapping[int, PublicLabels], part_of: Mapping[int, str | None]
) -> tuple[list[Task], list[Rejection], list[Rejection]]:
    """Tasks in the order of the numbers, what is missing, and what is left out."""
    rejected: list[Rejection] = []
    left_out: list[Rejection] = []
    usable: dict[int, str | None] = {}
    for number, part in sorted(part_of.items()):
        absent = [view for view in VIEWS if view not in pictures.files.get(number, {})]
        if not absent and number in BS80K.damaged and pictures.pixels(number) is None:
            paths = " + ".join(pictures.files_of(number).paths)
            left_out.append(Rejection(paths, "known-damage", "does not open, as is known of this data set: left out"))
        elif absent:
            target = left_out if number in BS80K.damaged else rejected
            folders = " and ".join(BS80K.folders[view] for view in absent)
            target.append(Rejection(f"{number}.jpg", "missing-view", f"is missing in {folders}"))
        elif number in labels:
            usable[number] = part
    patients, doubles = _without_doubles(pictures, usable)
    tasks = []
    for number, patient in patients.items():
        warnings = ("the scan of a child",) if number in BS80K.children else ()
        declared = Declaration(patient, None, None)
        source = pictures.files_of(number)
        tasks.append(Task(source, (), declared, (), labels[number], usable[number], warnings))
    return tasks, rejected, [*left_out, *doubles]


def _bs80k(scans: Path, boxes: str) -> PublicInputs:
    pictures = _bs80k_pictures(scans)
    files: defaultdict[int, dict[str, Path]] = defaultdict(dict)
    for view, wanted in BS80K.folders.items():
        folder = _subfolder(_subfolder(scans, wanted), BOX_FOLDERS[view])
        for name in sorted(os.listdir(folder)):
            if found := _XML.fullmatch(name):
                files[int(found[1])][view] = folder / name
    numbers = {*pictures.files, *files, *pictures.abnormal}
    labels = {
        number: BoxLabels(files.get(number, {}), pictures.called_abnormal(number), boxes == "rectangles")
        for number in numbers
    }
    tasks, rejected, left_out = _tasks(pictures, labels, dict.fromkeys(numbers))
    remarks = (WEAK,) if boxes == "masks" else (RECTANGLES,)
    return PublicInputs(
        Inputs(tuple(tasks), tuple(sorted(rejected, key=dataclasses.astuple)), (), tuple(pictures.notes)),
        tuple(left_out),
        (BS80K.source(pictures.whole, *remarks),),
    )


# --- the skeletons for BS-80K


def _bs80k_skeleton(scans: Path, folder: Path) -> PublicInputs:
    """Scans whose skeleton is drawn in both views. One that is tested in either view never trains."""
    pictures = _bs80k_pictures(scans)
    notes = [*pictures.notes]
    files: defaultdict[int, dict[str, Path]] = defaultdict(dict)
    parts: defaultdict[int, set[str]] = defaultdict(set)
    for view in VIEWS:
        place = _subfolder(_subfolder(folder, "masks"), view)
        for name in sorted(os.listdir(place)):
            if found := _PNG.fullmatch(name):
                files[int(found[1])][view] = place / name
        number = sum(view in views for views in files.values())
        if number != SKELETONS[view]:
            notes.append(f"{SKELETONS[view]:,} skeletons of the {view} view expected, {number:,} are in {place}")
        lists = _subfolder(_subfolder(folder, "splits"), view)
        for part, name in (("train", "train.txt"), ("validation", "val.txt"), ("test", "test.txt")):
            for word in _read_text(lists / name).split():
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
    tasks, rejected, left_out = _tasks(pictures, {number: SkeletonLabels(files[number]) for number in part_of}, part_of)
    whole = pictures.whole and all(
        sum(view in views for views in files.values()) == number for view, number in SKELETONS.items()
    )
    return PublicInputs(
        Inputs(tuple(tasks), tuple(sorted(rejected, key=dataclasses.astuple)), (), tuple(notes)),
        tuple(left_out),
        (BS80K_SKELETON.source(whole), BS80K.source(whole)),
    )


# --- the masks for BS-80K


def _bs80k_masks(scans: Path, folder: Path) -> PublicInputs:
    pictures = _bs80k_pictures(scans)
    rows = _read_manifest(folder)
    split = _split_of(rows, folder)
    files, rejected = _check_files(folder, rows)
    masked = {number for number, _ in files}
    # Who is called abnormal has a hot spot: without any mask it would count as free of hot spots.
    unmasked = {
        number
        for number in {*split} - masked - BS80K.damaged
        if split[number] != UNUSED and pictures.called_abnormal(number)
    }
    rejected += [
        Rejection(
            f"patient {number}", "missing-file", "is called abnormal, but manifest.csv has no hot-spot mask of it"
        )
        for number in sorted(unmasked)
    ]
    bad = unmasked | {number for (number, _), path in files.items() if path is None}
    labels = {
        number: MaskLabels(
            {view: path for view in VIEWS if (path := files.get((number, view))) is not None},
            pictures.called_abnormal(number),
        )
        for number, part in split.items()
        if part != UNUSED and number not in bad
    }
    part_of = {number: part for number, part in split.items() if part != UNUSED}
    tasks, missing, left_out = _tasks(pictures, labels, part_of)
    notes = [*pictures.notes]
    counts = Counter(split.values())
    for part, number in BS80K_MASKS.parts.items():
        if counts[part] != number:
            notes.append(f"the {part} part has {number:,} cases, {counts[part]:,} are in manifest.csv")
    if counts[UNUSED]:
        notes.append(f"{counted(counts[UNUSED], 'case')} of no part of the split left out")
    whole = counts == Counter(BS80K_MASKS.parts) and pictures.whole
    used = Counter(row["source"] for row in rows if _number(row) in part_of and _is_hotspot(row))
    made = "Hot-spot masks by their source: " + ", ".join(f"{used[name]:,} {name}" for name in sorted(used)) + "."
    return PublicInputs(
        Inputs(tuple(tasks), tuple(sorted((*rejected, *missing), key=dataclasses.astuple)), (), tuple(notes)),
        tuple(left_out),
        (BS80K_MASKS.source(whole, made), BS80K.source(whole)),
    )


def _read_manifest(folder: Path) -> list[dict[str, str]]:
    path = folder / "manifest.csv"
    if not path.is_file():
        raise DatasetError(f"{folder}: has no manifest.csv: name the folder of the masks with --labels")
    sums = folder / "SHA256SUMS.txt"
    if sums.is_file():
        known = {name.lstrip("*./"): digest for digest, name in map(_halves, _read_text(sums).splitlines())}
        wanted = known.get("manifest.csv")
        # An unpacking program may have changed the ends of the lines.
        data = path.read_bytes()
        if wanted and wanted.lower() not in (_sha256(data), _sha256(data.replace(b"\r\n", b"\n"))):
            raise DatasetError(f"{path}: not as SHA256SUMS.txt describes it: unpack the archive again")
    reader = csv.DictReader(io.StringIO(_read_text(path), newline=""))
    rows = [{str(key).strip(): (value or "").strip() for key, value in row.items()} for row in reader]
    if not rows or not set(rows[0]) >= _COLUMNS:
        raise DatasetError(f"{path}: must have the columns {', '.join(sorted(_COLUMNS))}")
    for line, row in enumerate(rows, start=2):
        if not re.search(r"\d+$", row["patient_id"]) or row["view"].lower() not in VIEWS:
            raise DatasetError(f"{path}: line {line} names no patient or view")
    if not any(map(_is_hotspot, rows)):
        found = ", ".join(sorted({repr(row["mask_set"][:20]) for row in rows})[:5])
        raise DatasetError(f"{path}: has no hot-spot mask: mask_set must be 'hotspot_masks', found {found}")
    return rows


def _halves(line: str) -> tuple[str, str]:
    first, _, rest = line.strip().partition(" ")
    return first, rest.strip()


def _number(row: Mapping[str, str]) -> int:
    return int(row["patient_id"].rpartition("_")[2])


def _is_hotspot(row: Mapping[str, str]) -> bool:
    return "hotspot" in re.sub(r"[\W_]", "", row["mask_set"].lower())


def _split_of(rows: Sequence[Mapping[str, str]], folder: Path) -> dict[int, str]:
    """Number -> "train", "validation", "test" or "unused"."""
    split: dict[int, str] = {}
    for row in rows:
        number, part = _number(row), {"val": "validation"}.get(row["split"].lower(), row["split"].lower())
        if part not in (*PARTS, UNUSED):
            raise DatasetError(f"{folder / 'manifest.csv'}: {row['patient_id']} is in the unknown part {part[:20]!r}")
        if split.setdefault(number, part) != part:
            raise DatasetError(f"{folder / 'manifest.csv'}: {row['patient_id']} is in two parts of the split")
    return split


def _check_files(
    folder: Path, rows: Sequence[Mapping[str, str]]
) -> tuple[dict[tuple[int, str], Path | None], list[Rejection]]:
    """(number, view) -> hot-spot mask, None when it is missing or another one; and what is wrong."""
    there = {
        Path(place, name).relative_to(folder).as_posix().lower(): Path(place, name)
        for place, names in walk_folders(folder)
        for name in names
    }
    files: dict[tuple[int, str], Path | None] = {}
    rejected = []
    for row in filter(_is_hotspot, rows):
        key, name = (_number(row), row["view"].lower()), row["file"].replace("\\", "/")
        path = there.get(name.lower()) or there.get(f"hotspot_masks/{name}".lower())
        files[key] = None
        if path is None:
            rejected.append(
                Rejection(name, "missing-file", "is in manifest.csv, but not there: unpack the archive again")
            )
        elif _sha256(path.read_bytes()) != row["sha256"].lower():
            message = "its SHA-256 is not that of manifest.csv: unpack the archive again"
            rejected.append(Rejection(name, "checksum", message))
        else:
            files[key] = path
    return files, rejected


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
