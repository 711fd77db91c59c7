"""Public data sets by name (`prepare --dataset`), as they come out of their archives. Nothing is downloaded here."""

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
from doubleunet_bs.dicom_files.sources import Source, walk_files
from doubleunet_bs.errors import DatasetError, ScanError, SettingsError, counted
from doubleunet_bs.files import no_folder
from doubleunet_bs.preparation import public_labels
from doubleunet_bs.preparation.find_inputs import Inputs, Task
from doubleunet_bs.preparation.patients import Declaration
from doubleunet_bs.preparation.public_labels import PublicLabels
from doubleunet_bs.preparation.records import PARTS, DataSource
from doubleunet_bs.scans.labels import read_file
from doubleunet_bs.scans.scan_files import Rejection, ScanFiles, read_scan

WEAK = "Weak labels: the masks were made from boxes by a rule, not drawn, so a score says how well that rule is met."
RECTANGLES = "Weak labels: the masks are boxes around the hot spots, so no score on them is a score of outlines."
BS80K = DataSource("bs80k", "none stated", "Huang et al. 2022, BS-80K, doi:10.1016/j.compbiomed.2022.106221")
BS80K_MASKS = DataSource("bs80k-masks", "CC BY 4.0", "masks for BS-80K, doi:10.5281/zenodo.23190333", (WEAK,))
BS80K_SKELETON = DataSource("bs80k-skeleton", "CC BY-SA 4.0", "skeletons for BS-80K, doi:10.5281/zenodo.20342310")
PARAGUAY = DataSource(
    "paraguay",
    "CC BY 4.0",
    "bone scans from Paraguay, PMC11699483, doi:10.5281/zenodo.13900966",
    ("The class of the patient is known, no metastasis is outlined.",),
)
DATASETS = {one.name: one for one in (BS80K_MASKS, BS80K, BS80K_SKELETON, PARAGUAY)}

# What must be in BS-80K, and patients by their number: whose pictures do not open, who are one, who are children.
PATIENTS = 3247
FOLDERS = {"anterior": "wholeBodyANT", "posterior": "wholeBodyPOST"}
BOX_FOLDERS = {"anterior": "ant", "posterior": "post"}
DAMAGED = frozenset({722, 779, 1654})
DOUBLES = ((312, 570), (828, 2244), (831, 3216), (832, 3245))
CHILDREN = frozenset({1240})
# Cases of each part of the split of the masks, skeletons of each view, and patients with and without metastases.
UNUSED = "unused"
SPLIT = {"train": 2340, "validation": 292, "test": 293, UNUSED: 322}
SKELETONS = {"anterior": 1841, "posterior": 1752}
PARAGUAY_PATIENTS = {True: 60, False: 231}

LARGEST_TABLE = 64 << 20
_COLUMNS = {"mask_set", "patient_id", "view", "file", "source", "split", "sha256"}


def find_public(name: str, scans: Path, labels: Path, boxes: str = "masks") -> Inputs:
    """Search the folders of a public data set and check what is in them: as `find_inputs`, with licence and citation.

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
    if name == PARAGUAY.name:
        return _paraguay(scans)
    pictures = _find_pictures(scans)
    if name == BS80K.name:
        return _bs80k(pictures, boxes)
    return (_bs80k_masks if name == BS80K_MASKS.name else _bs80k_skeleton)(pictures, labels)


@dataclasses.dataclass
class _Pictures:
    """Number of a patient -> view -> picture; the same for what the tables call abnormal; and lines for the user."""

    root: Path
    files: dict[int, dict[str, Path]]
    abnormal: dict[int, dict[str, bool]]
    notes: list[str]

    def files_of(self, number: int) -> ScanFiles:
        return _scan_files(self.files[number], self.root)

    @property
    def whole(self) -> bool:
        """Whether every patient is there; who is known to be damaged need not have pictures."""
        return len({*self.files, *(DAMAGED & set(self.abnormal))}) >= PATIENTS

    def pixels(self, number: int) -> str | None:
        """Hash of the pixels; None when the pictures do not open."""
        try:
            return read_scan([self.files[number][view] for view in VIEWS]).pixel_sha256
        except (ScanError, KeyError):
            return None


def _scan_files(views: Mapping[str, Path], root: Path) -> ScanFiles:
    return ScanFiles(tuple(Source(str(views[view])) for view in VIEWS), str(root))


def _find_pictures(root: Path) -> _Pictures:
    """The pictures of BS-80K, which its own boxes, the masks and the skeletons for it all belong to."""
    files = {view: _numbered(_subfolder(root, name), r"(\d+)\.jpe?g") for view, name in FOLDERS.items()}
    abnormal: defaultdict[int, dict[str, bool]] = defaultdict(dict)
    for view, wanted in FOLDERS.items():
        folder = _subfolder(root, wanted)
        table = next((name for name in os.listdir(folder) if name.lower() == f"{wanted.lower()}.txt"), None)
        if table is None:
            raise DatasetError(f"{folder}: {wanted}.txt is missing: it says which pictures are normal")
        for line, text in enumerate(_read_text(folder / table).splitlines(), start=1):
            found = re.fullmatch(r"\s*(\d+)\.jpe?g\s*\t\s*([01])\s*", text, re.IGNORECASE)
            if found:
                abnormal[int(found[1])][view] = found[2] == "1"
            elif text.strip():
                raise DatasetError(f"{folder / table}: line {line} is not NAME.jpg, a tab and 0 or 1")
    pictures = _Pictures(root, _by_number(files), dict(abnormal), [])
    if len(pictures.files) != PATIENTS:
        pictures.notes.append(f"{BS80K.name} has {PATIENTS:,} patients, {len(pictures.files):,} are in {root.name}")
    if differ := sum(len(set(said.values())) == 2 for said in abnormal.values()):
        pictures.notes.append(f"{counted(differ, 'patient')} abnormal in one view alone")
    return pictures


def _numbered(folder: Path, pattern: str) -> dict[int, Path]:
    """Number in the name -> file of a folder."""
    names = ((re.fullmatch(pattern, name, re.IGNORECASE), name) for name in sorted(os.listdir(folder)))
    return {int(found[1]): folder / name for found, name in names if found}


def _by_number(views: Mapping[str, Mapping[int, Path]]) -> dict[int, dict[str, Path]]:
    numbers = sorted({number for files in views.values() for number in files})
    return {number: {view: files[number] for view, files in views.items() if number in files} for number in numbers}


def _subfolder(root: Path, wanted: str) -> Path:
    """A folder of this name, in capitals or not, in `root` or one folder further down."""
    for place in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        for path in sorted(place.iterdir()):
            if path.name.lower() == wanted.lower() and path.is_dir():
                return path
    raise DatasetError(f"{root}: has no folder {wanted}: give the folder that came out of the archive")


def _read_text(path: Path) -> str:
    return read_file(path, LARGEST_TABLE, "table of this data set", DatasetError)


def _inputs(
    pictures: _Pictures,
    labels: Mapping[int, PublicLabels],
    part_of: Mapping[int, str | None],
    sources: Sequence[DataSource],
    rejected: Sequence[Rejection] = (),
) -> Inputs:
    """Tasks in the order of the numbers, what is missing, and what is left out."""
    rejected, left_out = list(rejected), []
    usable: dict[int, str | None] = {}
    for number, part in sorted(part_of.items()):
        absent = [view for view in VIEWS if view not in pictures.files.get(number, {})]
        if not absent and number in DAMAGED and pictures.pixels(number) is None:
            paths = " + ".join(pictures.files_of(number).paths)
            left_out.append(Rejection(paths, "known-damage", "does not open, as is known of this data set: left out"))
        elif absent:
            folders = " and ".join(FOLDERS[view] for view in absent)
            missing = Rejection(f"{number}.jpg", "missing-view", f"is missing in {folders}")
            (left_out if number in DAMAGED else rejected).append(missing)
        elif number in labels:
            usable[number] = part
    patients = _without_doubles(pictures, usable, left_out)
    tasks = [
        Task(
            pictures.files_of(number),
            (),
            Declaration(patient, None, None),
            public=labels[number],
            part=usable[number],
            warnings=("the scan of a child",) if number in CHILDREN else (),
        )
        for number, patient in patients.items()
    ]
    rejected.sort(key=dataclasses.astuple)
    notes = tuple(pictures.notes)
    return Inputs(tuple(tasks), tuple(rejected), (), notes, left_out=tuple(left_out), sources=tuple(sources))


def _without_doubles(
    pictures: _Pictures, part_of: Mapping[int, str | None], left_out: list[Rejection]
) -> dict[int, str]:
    """Number -> name of the patient, but for scans left out because their patient stands under another number, too.

    Of a patient in two parts of the split the scan in the training (or validation) part is left out, so that the test
    part stays as published.
    """
    patients = {number: f"{BS80K.name} {number}" for number in part_of}
    order = (*PARTS, None)
    for pair in DOUBLES:
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
    return patients


def _bs80k(pictures: _Pictures, boxes: str) -> Inputs:
    folders = {view: _subfolder(_subfolder(pictures.root, FOLDERS[view]), BOX_FOLDERS[view]) for view in VIEWS}
    files = _by_number({view: _numbered(folder, r"(\d+)\.xml") for view, folder in folders.items()})
    kind = public_labels.boxes_as_masks if boxes == "masks" else public_labels.boxes_as_rectangles
    labels = {
        number: PublicLabels(kind, files.get(number, {}), pictures.abnormal.get(number, {}))
        for number in {*pictures.files, *files, *pictures.abnormal}
    }
    remarks = (WEAK if boxes == "masks" else RECTANGLES,)
    source = dataclasses.replace(BS80K, whole=pictures.whole, remarks=remarks)
    return _inputs(pictures, labels, dict.fromkeys(labels), [source])


def _bs80k_skeleton(pictures: _Pictures, folder: Path) -> Inputs:
    """Scans whose skeleton is drawn in both views. One that is tested in either view never trains."""
    found: dict[str, dict[int, Path]] = {}
    parts: defaultdict[int, set[str]] = defaultdict(set)
    for view in VIEWS:
        place = _subfolder(_subfolder(folder, "masks"), view)
        found[view] = _numbered(place, r"(\d+)\.png")
        if len(found[view]) != SKELETONS[view]:
            pictures.notes.append(
                f"{SKELETONS[view]:,} skeletons of the {view} view expected, {len(found[view]):,} are in {place}"
            )
        lists = _subfolder(_subfolder(folder, "splits"), view)
        for part, name in (("train", "train.txt"), ("validation", "val.txt"), ("test", "test.txt")):
            for word in _read_text(lists / name).split():
                if not (number := re.fullmatch(r"(\d+)(\.png)?", word, re.IGNORECASE)):
                    raise DatasetError(f"{lists / name}: {word[:20]!r} is no number of a patient")
                parts[int(number[1])].add(part)
    files = _by_number(found)
    if several := sum(len(own) > 1 for own in parts.values()):
        pictures.notes.append(
            f"{counted(several, 'patient')} in other parts by view: test goes before validation and training"
        )
    part_of = {
        number: next(part for part in PARTS if part in parts[number])
        for number, views in files.items()
        if len(views) == len(VIEWS) and parts.get(number)
    }
    if alone := len(files) - len(part_of):
        pictures.notes.append(f"{counted(alone, 'skeleton')} of one view alone or of no part left out")
    whole = pictures.whole and all(len(found[view]) == number for view, number in SKELETONS.items())
    labels = {number: PublicLabels(public_labels.skeleton, files[number]) for number in part_of}
    sources = [dataclasses.replace(one, whole=whole) for one in (BS80K_SKELETON, BS80K)]
    return _inputs(pictures, labels, part_of, sources)


def _bs80k_masks(pictures: _Pictures, folder: Path) -> Inputs:
    rows = _read_manifest(folder)
    split = _split_of(rows, folder)
    files, rejected = _check_files(folder, rows)
    bad = {number for (number, _), path in files.items() if path is None}
    part_of = {number: part for number, part in split.items() if part != UNUSED}
    labels = {
        number: PublicLabels(
            public_labels.masks,
            {view: path for view in VIEWS if (path := files.get((number, view))) is not None},
            pictures.abnormal.get(number, {}),
        )
        for number in part_of
        if number not in bad
    }
    counts = Counter(split.values())
    for part, number in SPLIT.items():
        if counts[part] != number:
            pictures.notes.append(f"the {part} part has {number:,} cases, {counts[part]:,} are in manifest.csv")
    if counts[UNUSED]:
        pictures.notes.append(f"{counted(counts[UNUSED], 'case')} of no part of the split left out")
    whole = counts == Counter(SPLIT) and pictures.whole
    used = Counter(row["source"] for row in rows if _number_of(row) in part_of and _is_hotspot(row))
    made = "Hot-spot masks by their source: " + ", ".join(f"{used[name]:,} {name}" for name in sorted(used)) + "."
    own = dataclasses.replace(BS80K_MASKS, whole=whole, remarks=(*BS80K_MASKS.remarks, made))
    return _inputs(pictures, labels, part_of, [own, dataclasses.replace(BS80K, whole=whole)], rejected)


def _read_manifest(folder: Path) -> list[dict[str, str]]:
    path = folder / "manifest.csv"
    if not path.is_file():
        raise DatasetError(f"{folder}: has no manifest.csv: name the folder of the masks with --labels")
    if (sums := folder / "SHA256SUMS.txt").is_file():
        data = path.read_bytes()
        # An unpacking program may have changed the ends of the lines.
        known = (_sha256(data), _sha256(data.replace(b"\r\n", b"\n")))
        for digest, _, name in (line.strip().partition(" ") for line in _read_text(sums).splitlines()):
            if name.strip().lstrip("*./") == "manifest.csv" and digest.lower() not in known:
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


def _number_of(row: Mapping[str, str]) -> int:
    return int(row["patient_id"].rpartition("_")[2])


def _is_hotspot(row: Mapping[str, str]) -> bool:
    return "hotspot" in re.sub(r"[\W_]", "", row["mask_set"].lower())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _split_of(rows: Sequence[Mapping[str, str]], folder: Path) -> dict[int, str]:
    """Number -> "train", "validation", "test" or "unused"."""
    split: dict[int, str] = {}
    for row in rows:
        part = {"val": "validation"}.get(row["split"].lower(), row["split"].lower())
        if part not in SPLIT:
            raise DatasetError(f"{folder / 'manifest.csv'}: {row['patient_id']} is in the unknown part {part[:20]!r}")
        if split.setdefault(_number_of(row), part) != part:
            raise DatasetError(f"{folder / 'manifest.csv'}: {row['patient_id']} is in two parts of the split")
    return split


def _check_files(
    folder: Path, rows: Sequence[Mapping[str, str]]
) -> tuple[dict[tuple[int, str], Path | None], list[Rejection]]:
    """(number, view) -> hot-spot mask, None when it is missing or another one; and what is wrong."""
    paths = [Path(path) for path in walk_files(folder)]
    there = {path.relative_to(folder).as_posix().lower(): path for path in paths}
    files: dict[tuple[int, str], Path | None] = {}
    rejected = []
    for row in filter(_is_hotspot, rows):
        key, name = (_number_of(row), row["view"].lower()), row["file"].replace("\\", "/")
        path = there.get(name.lower()) or there.get(f"hotspot_masks/{name}".lower())
        files[key] = None
        if path is None:
            message = "is in manifest.csv, but not there: unpack the archive again"
            rejected.append(Rejection(name, "missing-file", message))
        elif _sha256(path.read_bytes()) != row["sha256"].lower():
            message = "its SHA-256 is not that of manifest.csv: unpack the archive again"
            rejected.append(Rejection(name, "checksum", message))
        else:
            files[key] = path
    return files, rejected


def _paraguay(scans: Path) -> Inputs:
    """Scans of patients with and without metastases, none of which is outlined."""
    root, tasks, rejected = _subfolder(scans, "images"), [], []
    seen: Counter[bool] = Counter()
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        metastases = public_labels.has_metastases(folder.name)
        if metastases is None:
            message = "says neither 'metastasis' nor 'no metastasis': rename it to what its patients have"
            rejected.append(Rejection(str(folder.relative_to(scans)), "unknown-class", message))
            continue
        kind = public_labels.patient_with_metastases if metastases else public_labels.normal_patient
        files = _by_number({view: _numbered(_subfolder(folder, view), rf"{view[0]}(\d+)\.png") for view in VIEWS})
        for number, views in files.items():
            seen[metastases] += 1
            if absent := [view for view in VIEWS if view not in views]:
                [there] = [str(path.relative_to(scans)) for path in views.values()]
                rejected.append(Rejection(there, "missing-view", f"has no picture of the {absent[0]} view beside it"))
                continue
            declared = Declaration(f"{PARAGUAY.name} {folder.name}/{number}", None, metastases)
            tasks.append(Task(_scan_files(views, scans), (), declared, public=PublicLabels(kind)))
    notes = [
        f"{wanted} patients {'with' if ill else 'without'} metastases expected, {seen[ill]} are in {root.name}"
        for ill, wanted in PARAGUAY_PATIENTS.items()
        if seen[ill] != wanted
    ]
    source = dataclasses.replace(PARAGUAY, whole=not notes and not rejected)
    return Inputs(tuple(tasks), tuple(rejected), (), tuple(notes), sources=(source,))
