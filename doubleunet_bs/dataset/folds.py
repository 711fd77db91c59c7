"""Cross-validation folds by patient, written to a file once and reused (paper, section 2.8).

The patients with metastases are split into as many parts as there are folds. Fold k tests on part k, validates on the
next part and trains on the rest. Normal scans are used for training only. With ten parts that is the paper's 8 : 1 : 1.
A public data set brings its own division into training, validation and test: three parts, normal scans among them, of
which fold 1 is the only fold.

`Folds` is read once (`load_folds`) or made (`make_folds`) and passed on; `folds.split(k)` names the cases of fold k.
"""

import dataclasses
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from doubleunet_bs.connected_components import find_components
from doubleunet_bs.constants import CASE_NAME, METASTATIC
from doubleunet_bs.errors import DatasetError, SettingsError
from doubleunet_bs.files import read_json
from doubleunet_bs.preparation.records import PARTS, CaseRecord
from doubleunet_bs.preparation.shards import ShardedDataset

FORMAT = 1
RULE = "in fold k part k tests, the next part validates, the others train; negatives train in every fold"
PUBLISHED_RULE = "published split: the first part tests, the second validates, the third trains"


def count_lesions(labels: np.ndarray) -> int:
    """Number of connected areas of metastatic pixels, corners included, in each view by itself.

    Args:
        labels: (rows, columns) uint8 classes; anterior view on the left.

    Example:
        >>> count_lesions(np.array([[2, 0, 0, 2], [0, 2, 0, 2]], np.uint8))
        2
    """
    metastatic = np.asarray(labels) == METASTATIC
    half = metastatic.shape[1] // 2
    return sum(len(find_components(view)) for view in (metastatic[:, :half], metastatic[:, half:]))


def lesions_of_cases(dataset: ShardedDataset) -> dict[str, int]:
    """Case -> number of its lesions, 0 for scans without metastases."""
    return {
        case.case: count_lesions(dataset.labels(index)) if case.metastatic_pixels else 0
        for index, case in enumerate(dataset.cases)
    }


@dataclasses.dataclass(frozen=True)
class Split:
    """The case pseudonyms of one fold. `negatives` are the normal scans that may join the training set."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    negatives: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Folds:
    """The cases of a data set, split into parts by patient.

    Attributes:
        parts: the positive cases of each part.
        negatives: the negative cases.
        patients: case -> patient pseudonym, for all of them.
        seed: the seed it was drawn with, None when a user wrote the file.
        negative_parts: the negative cases of each of the three parts of a published split, which tests on its first
            part, validates on the second and trains on the third; empty in a cross-validation.
    """

    parts: tuple[tuple[str, ...], ...]
    negatives: tuple[str, ...]
    patients: dict[str, str]
    seed: int | None
    negative_parts: tuple[tuple[str, ...], ...] = ()

    def __len__(self) -> int:
        return 1 if self.is_published else len(self.parts)

    @property
    def is_published(self) -> bool:
        """Whether this is a published split with one fold instead of a cross-validation."""
        return bool(self.negative_parts)

    def split(self, fold: int) -> Split:
        """The cases of fold 1 ... len(self).

        A negative scan of a patient who tests or validates in this fold does not train in it.

        Raises:
            SettingsError: for a fold number out of range.

        Example:
            >>> patients = {f"case-{number}": f"patient-{number}" for number in range(4)}
            >>> folds = Folds((("case-0",), ("case-1",), ("case-2",)), ("case-3",), patients, seed=None)
            >>> folds.split(3)
            Split(train=('case-1',), validation=('case-0',), test=('case-2',), negatives=('case-3',))
        """
        if not 1 <= fold <= len(self):
            there = f"there are folds 1 to {len(self)} (--folds {len(self)})"
            there = "the published split is fold 1" if self.is_published else there
            raise SettingsError(f"fold {fold} is out of range: {there}")
        test = self.parts[fold - 1]
        validation = self.parts[fold % len(self.parts)]
        others = (fold - 1, fold % len(self.parts))
        train = tuple(case for index, part in enumerate(self.parts) if index not in others for case in part)
        held_out = {self.patients[case] for case in (*test, *validation)}
        may_train = self.negative_parts[-1] if self.is_published else self.negatives
        negatives = tuple(case for case in may_train if self.patients[case] not in held_out)
        return Split(train=train, validation=validation, test=test, negatives=negatives)

    def sha256(self) -> str:
        """Hash of the parts, whatever file they came from."""
        text = repr((self.parts, self.negatives, *([self.negative_parts] if self.is_published else [])))
        return hashlib.sha256(text.encode()).hexdigest()


def make_folds(
    cases: Sequence[CaseRecord], folds: int = 10, seed: int = 0, lesions: Mapping[str, int] | None = None
) -> Folds:
    """Split cases by patient, so that every part has patients of few and of many lesions.

    The patients with metastases are sorted by the number of their lesions, those with equally many by their metastatic
    pixels. They are distributed in rounds of `folds`, each round in random order. All scans of a patient stay together.

    Args:
        cases: any order; the result does not depend on it.
        folds: number of parts, at least 3 (one tests, one validates, one trains).
        seed: of the random order.
        lesions: case -> number of its lesions, see `lesions_of_cases`; None: metastatic pixels alone decide.

    Raises:
        SettingsError: fewer than 3 folds, or more folds than patients with metastases.
    """
    if folds < 3:
        raise SettingsError(f"{folds} folds: at least 3 are needed, to test, to validate and to train")
    burden, scans = _burden(cases, lesions)
    if len(burden) < folds:
        found = f"{len(burden)} patients with outlined metastases cannot fill {folds} folds"
        raise SettingsError(f"{found}: prepare more scans, or lower --folds")
    ordered = sorted(burden, key=lambda patient: (burden[patient], patient))
    rng = np.random.default_rng(seed)
    parts: list[list[str]] = [[] for _ in range(folds)]
    for start in range(0, len(ordered), folds):
        round_ = ordered[start : start + folds]
        # Parts that are short of scans come first, so that the last, incomplete round and patients with several scans
        # do not pile up in one part.
        targets = sorted(rng.permutation(folds), key=lambda part: len(parts[part]))
        for patient, part in zip(rng.permutation(round_), targets, strict=False):
            parts[part].extend(sorted(scans[str(patient)]))
    return _cross_validation(parts, cases, seed)


def _cross_validation(parts: Iterable[Iterable[str]], cases: Sequence[CaseRecord], seed: int | None) -> Folds:
    return Folds(
        parts=tuple(tuple(part) for part in parts),
        negatives=tuple(sorted(case.case for case in cases if case.group == "negative")),
        patients={case.case: case.patient for case in cases},
        seed=seed,
    )


def has_published_split(cases: Iterable[CaseRecord]) -> bool:
    """Whether all scans with metastases are of a public data set that has divided them into training, validation and
    test. Normal scans of another data set train."""
    return {case.part for case in cases if case.group == "positive"} == set(PARTS)


def published_folds(cases: Sequence[CaseRecord]) -> Folds:
    """The published split of a public data set, as one fold; `SettingsError` where a part has no metastases."""
    if not has_published_split(cases):
        raise SettingsError("1 fold is the published split of a public data set, which these shards lack: set --folds")
    parts, negative_parts = (
        tuple(
            tuple(sorted(case.case for case in cases if (case.part or "train", case.group) == (part, group)))
            for part in PARTS
        )
        for group in ("positive", "negative")
    )
    return Folds(
        parts=parts,
        negatives=tuple(sorted(case for part in negative_parts for case in part)),
        patients={case.case: case.patient for case in cases},
        seed=None,
        negative_parts=negative_parts,
    )


def in_training_part(cases: Iterable[CaseRecord]) -> list[CaseRecord]:
    """The cases that a cross-validation may use: none of the validation and test part of a published split."""
    return [case for case in cases if case.part in (None, "train")]


def choose_folds(dataset: ShardedDataset, folds: int | None = None, seed: int = 0) -> Folds:
    """The folds of a new run: the published split for 1 fold, else drawn by the seed from what may train in it.

    Args:
        dataset: opened shards.
        folds: their number; None: 1 where there is a published split, else 10.
        seed: of the random order.

    Raises:
        SettingsError: see `published_folds` and `make_folds`.
    """
    if folds == 1 or (folds is None and has_published_split(dataset.cases)):
        return published_folds(dataset.cases)
    drawn = 10 if folds is None else folds
    return make_folds(in_training_part(dataset.cases), drawn, seed, lesions_of_cases(dataset))


def keep_parts(earlier: Folds, cases: Sequence[CaseRecord], lesions: Mapping[str, int] | None = None) -> Folds:
    """The folds of a cohort that has grown or was corrected: patients with metastases stay in their `earlier` parts.

    A patient who is new, or had no metastases, goes into a part with the fewest patients, those with the most lesions
    first. `SettingsError`: no patient of one of the parts is left.
    """
    burden, scans = _burden(cases, lesions)
    part_of = {earlier.patients[case]: number for number, part in enumerate(earlier.parts) for case in part}
    members: list[list[str]] = [[] for _ in earlier.parts]
    for patient in sorted(burden):
        if patient in part_of:
            members[part_of[patient]].append(patient)
    for patient in sorted(burden.keys() - part_of.keys(), key=lambda patient: (burden[patient], patient), reverse=True):
        min(members, key=len).append(patient)
    if not all(members):
        raise SettingsError(
            f"no patient of part {members.index([]) + 1} of the earlier folds is left: give --folds-file"
        )
    parts = ((case for patient in part for case in sorted(scans[patient])) for part in members)
    return _cross_validation(parts, cases, earlier.seed)


def _burden(
    cases: Sequence[CaseRecord], lesions: Mapping[str, int] | None
) -> tuple[dict[str, tuple[int, int]], dict[str, list[str]]]:
    """Of the patients with metastases: (lesions, metastatic pixels), and their scans with metastases."""
    burden: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    scans: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        if case.group == "positive":
            number, pixels = burden[case.patient]
            own = lesions[case.case] if lesions is not None else 0
            burden[case.patient] = number + own, pixels + case.metastatic_pixels
            scans[case.patient].append(case.case)
    return burden, scans


def hold_out(cases: Sequence[CaseRecord], parts: int, seed: int = 0, lesions: Mapping[str, int] | None = None) -> Split:
    """Keep one of some parts of a cohort for validation, see `make_folds`; all other cases may train. Nothing tests.

    There are as many parts as patients when these are fewer. `SettingsError`: fewer than 3 patients with metastases.
    """
    patients = {case.patient for case in cases if case.group == "positive"}
    if len(patients) < 3:
        raise SettingsError(f"{len(patients)} patients with metastases: at least 3 are needed")
    # Split as for a cross-validation. The part that tests in fold 1 validates here; all others train.
    folds = make_folds(cases, min(parts, len(patients)), seed, lesions)
    validation = folds.parts[0]
    held_out = {folds.patients[case] for case in validation}
    return Split(
        train=tuple(case for part in folds.parts[1:] for case in part),
        validation=validation,
        test=(),
        negatives=tuple(case for case in folds.negatives if folds.patients[case] not in held_out),
    )


def folds_to_json(folds: Folds) -> dict[str, Any]:
    """The content of `folds.json`: the parts with pseudonyms, readable and editable by hand."""
    return {
        "format": FORMAT,
        "seed": folds.seed,
        "rule": PUBLISHED_RULE if folds.is_published else RULE,
        "parts": [list(part) for part in folds.parts],
        "negatives": list(folds.negatives),
        **({"negative_parts": [list(part) for part in folds.negative_parts]} if folds.is_published else {}),
    }


def load_folds(path: str | os.PathLike, cases: Sequence[CaseRecord]) -> Folds:
    """Read a folds file and check it against the cases of a data set.

    Raises:
        DatasetError: another format, a case twice or in the wrong group, a case that only the data set or only the file
            has, a patient in two parts.
    """
    content = read_json(path, DatasetError, "folds file")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DatasetError(f"{path}: not a folds file of format {FORMAT}")
    parts: Any = content.get("parts")
    negatives: Any = content.get("negatives", [])
    if not (_lists_of_text(parts) and len(parts) >= 3 and all(parts) and _lists_of_text([negatives])):
        raise DatasetError(f"{path}: `parts` must be at least 3 lists of cases, none empty, and `negatives` one list")
    if not all(CASE_NAME.fullmatch(case) for part in (*parts, negatives) for case in part):
        raise DatasetError(f"{path}: a name in it is no name of a case: they look like case-0123456789ab")
    negative_parts: Any = content.get("negative_parts", [])
    if negative_parts != [] and not (
        _lists_of_text(negative_parts)
        and len(negative_parts) == len(parts) == 3
        and sorted(case for part in negative_parts for case in part) == sorted(negatives)
    ):
        raise DatasetError(f"{path}: `negative_parts` must be three lists that make up `negatives`, beside 3 `parts`")
    groups = {case.case: case.group for case in (cases if negative_parts else in_training_part(cases))}
    if not negative_parts and not {name for part in (*parts, negatives) for name in part} <= set(groups):
        groups = {case.case: case.group for case in cases}  # the user's own division, across the published one
    _check_group(path, [case for part in parts for case in part], "positive", groups)
    _check_group(path, negatives, "negative", groups)
    patients = {case.case: case.patient for case in cases}
    part_of: dict[str, int] = {}
    for number, part in enumerate(parts, start=1):
        for case in (*part, *(negative_parts[number - 1] if negative_parts else ())):
            if part_of.setdefault(patients[case], number) != number:
                places = f"parts {part_of[patients[case]]} and {number} share a patient (case {case})"
                raise DatasetError(f"{path}: {places}: put all scans of a patient into one part")
    return Folds(
        parts=tuple(tuple(part) for part in parts),
        negatives=tuple(negatives),
        patients=patients,
        seed=content.get("seed"),
        negative_parts=tuple(map(tuple, negative_parts)),
    )


def _check_group(path: str | os.PathLike, names: Sequence[str], group: str, groups: Mapping[str, str]) -> None:
    """All cases of a group must be in the file, each once."""
    times = Counter(names)
    for name in names:
        if times[name] > 1:
            raise DatasetError(f"{path}: {name} is in it twice: keep one entry")
        if groups.get(name) != group:
            raise DatasetError(f"{path}: {name} is not a {group} case of this dataset: was it made for another one?")
    for name, own in groups.items():
        if own == group and name not in times:
            raise DatasetError(f"{path}: {name} of this dataset is not in it: was it made for another one?")


def _lists_of_text(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(part, list) and all(isinstance(name, str) for name in part) for part in value
    )
