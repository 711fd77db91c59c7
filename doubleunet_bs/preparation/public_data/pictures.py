"""The pictures of BS-80K, which its own boxes, the masks and the skeletons for it all belong to."""

import dataclasses
import os
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from doubleunet_bs.constants import VIEWS
from doubleunet_bs.dicom_files.sources import Source
from doubleunet_bs.errors import DatasetError, ScanError, counted, os_reason
from doubleunet_bs.preparation.find_inputs import PublicLabels, Task
from doubleunet_bs.preparation.patients import Declaration
from doubleunet_bs.preparation.public_data import data_sets
from doubleunet_bs.preparation.records import PARTS
from doubleunet_bs.scans.labels import decode_text
from doubleunet_bs.scans.scan_files import Rejection, ScanFiles, read_scan

NUMBERED = re.compile(r"0*([1-9]\d*)\.jpe?g", re.IGNORECASE)


@dataclasses.dataclass
class Pictures:
    """Number of a patient -> view -> picture; the same for what the tables call abnormal; and lines for the user."""

    root: Path
    files: dict[int, dict[str, Path]]
    abnormal: dict[int, dict[str, bool]]
    notes: list[str]

    def files_of(self, number: int) -> ScanFiles:
        return ScanFiles(tuple(Source(str(self.files[number][view])) for view in VIEWS), str(self.root))

    @property
    def whole(self) -> bool:
        """Whether every patient is there; who is known to be damaged need not have pictures."""
        return len({*self.files, *(data_sets.BS80K.damaged & set(self.abnormal))}) >= data_sets.BS80K.patients

    def pixels(self, number: int) -> str | None:
        """Hash of the pixels; None when the pictures do not open."""
        try:
            return read_scan([self.files[number][view] for view in VIEWS]).pixel_sha256
        except (ScanError, KeyError):
            return None


def find_pictures_of_bs80k(root: Path) -> Pictures:
    files: defaultdict[int, dict[str, Path]] = defaultdict(dict)
    abnormal: defaultdict[int, dict[str, bool]] = defaultdict(dict)
    notes = []
    for view, wanted in data_sets.BS80K.folders.items():
        folder = subfolder(root, wanted)
        names = {name.lower(): name for name in sorted(os.listdir(folder))}
        for name in names.values():
            found = NUMBERED.fullmatch(name)
            if found:
                files[int(found[1])][view] = folder / name
        table = names.get(f"{wanted.lower()}.txt")
        if table is None:
            raise DatasetError(f"{folder}: {wanted}.txt is missing: it says which pictures are normal")
        for line, text in enumerate(read_text(folder / table).splitlines(), start=1):
            name, _, said = text.strip().partition("\t")
            found = NUMBERED.fullmatch(name.strip())
            if not text.strip():
                continue
            if not found or said.strip() not in ("0", "1"):
                raise DatasetError(f"{folder / table}: line {line} is not NAME.jpg, a tab and 0 or 1")
            abnormal[int(found[1])][view] = said.strip() == "1"
    if len(files) != data_sets.BS80K.patients:
        notes.append(
            f"{data_sets.BS80K.name} has {data_sets.BS80K.patients:,} patients, {len(files):,} are in {root.name}"
        )
    differ = sum(len(set(said.values())) == 2 for said in abnormal.values())
    if differ:
        notes.append(f"{counted(differ, 'patient')} abnormal in one view alone")
    return Pictures(root, dict(files), dict(abnormal), notes)


def subfolder(root: Path, wanted: str) -> Path:
    """A folder of this name, in capitals or not, in `root` or one folder further down."""
    for place in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        for path in sorted(place.iterdir()):
            if path.name.lower() == wanted.lower() and path.is_dir():
                return path
    raise DatasetError(f"{root}: has no folder {wanted}: give the folder that came out of the archive")


def read_text(path: Path) -> str:
    try:
        return decode_text(path.read_bytes())
    except ValueError as cause:
        raise DatasetError(f"{path}: is {cause}") from None
    except OSError as cause:
        raise DatasetError(f"{path}: cannot be read ({os_reason(cause)})") from None


def _without_doubles(pictures: Pictures, part_of: Mapping[int, str | None]) -> tuple[dict[int, str], list[Rejection]]:
    """Number -> name of the patient, and the scans left out because their patient stands under another number, too.

    Of a patient in two parts of the split the scan in the training (or validation) part is left out, so that the test
    part stays as published.
    """
    patients = {number: f"{data_sets.BS80K.name} {number}" for number in part_of}
    left_out = []
    order = (*PARTS, None)
    for pair in data_sets.BS80K.doubles:
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


def tasks_of(
    pictures: Pictures, labels: Mapping[int, PublicLabels], part_of: Mapping[int, str | None]
) -> tuple[list[Task], list[Rejection], list[Rejection]]:
    """Tasks in the order of the numbers, what is missing, and what is left out."""
    rejected: list[Rejection] = []
    left_out: list[Rejection] = []
    usable: dict[int, str | None] = {}
    for number, part in sorted(part_of.items()):
        absent = [view for view in VIEWS if view not in pictures.files.get(number, {})]
        if not absent and number in data_sets.BS80K.damaged and pictures.pixels(number) is None:
            paths = " + ".join(pictures.files_of(number).paths)
            left_out.append(Rejection(paths, "known-damage", "does not open, as is known of this data set: left out"))
        elif absent:
            target = left_out if number in data_sets.BS80K.damaged else rejected
            folders = " and ".join(data_sets.BS80K.folders[view] for view in absent)
            target.append(Rejection(f"{number}.jpg", "missing-view", f"is missing in {folders}"))
        elif number in labels:
            usable[number] = part
    patients, doubles = _without_doubles(pictures, usable)
    tasks = []
    for number, patient in patients.items():
        warnings = ("the scan of a child",) if number in data_sets.BS80K.children else ()
        declared = Declaration(patient, None, None)
        source = pictures.files_of(number)
        tasks.append(Task(source, (), declared, (), labels[number], usable[number], warnings))
    return tasks, rejected, [*left_out, *doubles]
