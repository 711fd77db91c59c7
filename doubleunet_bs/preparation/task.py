"""One scan of a folder with its annotation -> a prepared case or the problem with it. Runs in any process."""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from doubleunet_bs.errors import ScanError
from doubleunet_bs.files import write_json
from doubleunet_bs.preparation.annotations import decide_group, read_annotation
from doubleunet_bs.preparation.case import prepare_scan
from doubleunet_bs.preparation.patients import Declaration
from doubleunet_bs.preparation.records import CaseRecord, make_record
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.scans.folder import ScanFiles
from doubleunet_bs.scans.pseudonyms import Pseudonyms

MOST_LINES = 50


@dataclasses.dataclass(frozen=True)
class Problem:
    """Why a file does not go in.

    Attributes:
        path: as the user knows it, below the folder he named.
        reason: slug, for instance "not-dicom".
        message: one line for a technician.
    """

    path: str
    reason: str
    message: str


def problem_table(problems: Sequence[Problem]) -> str:
    """A table of at most 50 problems for a terminal, and a line that says how many more there are."""
    lines = [f"{'FILE':<32}  {'REASON':<20}  WHAT TO KNOW"]
    for problem in problems[:MOST_LINES]:
        path = problem.path if len(problem.path) <= 32 else "..." + problem.path[-29:]
        lines.append(f"{path:<32}  {problem.reason:<20}  {problem.message}")
    if len(problems) > MOST_LINES:
        lines.append(f"... and {len(problems) - MOST_LINES} more")
    # File names need not be UTF-8; a terminal must survive them.
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode("utf-8")


def write_problems(path: str | os.PathLike, problems: Sequence[Problem]) -> None:
    """Write all problems as a JSON list of objects with `path`, `reason` and `message`, readable by its owner only."""
    clean = [
        {
            name: text.encode("utf-8", "backslashreplace").decode("utf-8")
            for name, text in dataclasses.asdict(problem).items()
        }
        for problem in problems
    ]
    # File names of a hospital's export often are the patients' names.
    write_json(path, clean, mode=0o600)


NO_PATIENT = "neither patients.csv nor the header say who the patient is: taken as a patient of his own"


@dataclasses.dataclass(frozen=True)
class Task:
    """One scan to prepare.

    Attributes:
        source: its files. path: of the scan as the user knows it, for problems.
        labels: its annotation files. declared: its line of patients.csv, or None.
    """

    source: ScanFiles
    path: str
    labels: tuple[Path, ...]
    declared: Declaration | None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a task: either `problem`, or all the others.

    Attributes:
        header_patient: pseudonym of the header's PatientID, or None; `record.patient` is who it is taken for.
        declared: whether patients.csv says who the patient is.
        identities: key and lookup table of the pseudonyms that this task met.
    """

    problem: Problem | None = None
    record: CaseRecord | None = None
    counts: np.ndarray | None = None
    labels: np.ndarray | None = None
    header_patient: str | None = None
    declared: bool = False
    identities: Pseudonyms | None = None


def prepare_task(
    task: Task, settings: PreparationSettings, allow_missing_view: bool, pseudonyms: Pseudonyms, labels_folder: str
) -> Outcome:
    """Read, prepare, and say what is wrong in words of our own.

    Args:
        task, settings, allow_missing_view: what and how.
        pseudonyms: with an empty table, which is handed back with what this task added.
        labels_folder: cut out of messages, so that they name annotations as the user does.
    """
    try:
        scan = task.source.read(allow_missing_view=allow_missing_view, pseudonyms=pseudonyms)
        annotation = read_annotation(task.source.names, task.labels, settings.classes, scan.missing_views)
        group = decide_group(annotation, task.declared)
        prepared = prepare_scan(scan, annotation.lesions, settings)
    except ScanError as error:
        refused = task.source.rejection(error)
        # Annotations are named as the user knows them as well.
        message = refused.message.replace(f"{labels_folder}/", "")
        return Outcome(problem=Problem(task.path, refused.reason, message), identities=pseudonyms)
    warnings = list(annotation.warnings)
    patient = scan.patient
    declared = bool(task.declared and task.declared.patient)
    if declared:
        patient = pseudonyms.patient(task.declared.patient)
    elif patient is None:
        patient = pseudonyms.patient(f"scan {scan.case}")
        warnings.append(NO_PATIENT)
    if group == "positive" and not prepared.metastatic_pixels:
        warnings.append("no metastatic pixel is left in the prepared image")
    pixel_sha256 = scan.pixel_sha256 or hashlib.sha256(scan.anterior.tobytes() + scan.posterior.tobytes()).hexdigest()
    cancer = task.declared.cancer if task.declared else None
    return Outcome(
        record=make_record(prepared, patient, group, cancer, pixel_sha256, tuple(warnings)),
        counts=prepared.counts,
        labels=prepared.labels,
        header_patient=scan.patient,
        declared=declared,
        identities=pseudonyms,
    )
