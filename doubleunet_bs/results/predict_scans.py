"""The work of `predict`: the scans a user named are read, segmented and written one after the other, and printed."""

import dataclasses
import datetime
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from doubleunet_bs import __version__
from doubleunet_bs.constants import VIEWS
from doubleunet_bs.errors import BoneScanError, RunError, ScanError, SettingsError
from doubleunet_bs.files import nearest_existing
from doubleunet_bs.inference.engines import check_choice, check_threshold, choose_local
from doubleunet_bs.inference.model_description import INTENDED_USE, ModelDescription
from doubleunet_bs.inference.model_folder import find_model
from doubleunet_bs.inference.predictor import Predictor
from doubleunet_bs.preparation.case import PreparedCase, prepare_scan
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.results.input_scans import list_scans, scan_name
from doubleunet_bs.results.labelme_output import annotation_paths
from doubleunet_bs.results.previous_scan import find_previous
from doubleunet_bs.results.result_files import JobSettings, case_folder
from doubleunet_bs.results.result_folder import WrittenResult, report_scan, write_prediction
from doubleunet_bs.results.source_study import SourceStudy, read_source_study
from doubleunet_bs.scans.bone_scan import BoneScan
from doubleunet_bs.scans.other_files import count_kinds
from doubleunet_bs.scans.scan_files import ScanFiles, ScanFolder
from doubleunet_bs.scans.sources import Source
from doubleunet_bs.stop_signals import StopSignals


@dataclasses.dataclass(frozen=True)
class PredictionTask:
    """What a user asks `predict` for.

    Attributes:
        scans: files, folders and zip archives.
        settings: what to write, and where.
        model: folder of a fold or of an exported model, or its name on the server.
        engine, server, precision, deadline, threshold: see `inference.predictor.Predictor`.
        previous: result folder or scan of an earlier date, for the report; None for none.
        log: file for a log; None for none.
    """

    scans: Sequence[str]
    settings: JobSettings
    model: str
    engine: str = "auto"
    server: str | None = None
    precision: str = "auto"
    deadline: float | None = None
    threshold: float | None = None
    previous: str | None = None
    log: Path | None = None

    def find_scans(self) -> ScanFolder:
        """The scans to segment, once the options have been found possible. Unusable files are reported.

        Raises:
            SettingsError: options that contradict each other, or a path that does not exist.
            ScanError: there is no usable scan.
        """
        settings = self.settings
        check_choice(self.engine, self.precision, self.server, self.deadline)
        check_threshold(self.threshold)
        for option, path in (("out", settings.out), ("labelme", settings.labelme)):
            if path is not None and not nearest_existing(path).is_dir():
                raise SettingsError(f"{nearest_existing(path)}: is a file; --{option} names a folder")
        if settings.keep_identity and "dicom" not in settings.outputs:
            raise SettingsError("--keep-identity needs the DICOM results: add dicom to --outputs")
        if self.previous and "report" not in settings.outputs:
            raise SettingsError("--previous needs the report: add report to --outputs")
        found = list_scans(self.scans, settings.allow_missing_view)
        other = count_kinds(found.passed_over)
        if not found.scans and not found.rejected:
            beside = f", only {other}" if other else ""
            raise ScanError(f"{', '.join(self.scans)}: no scan is in it{beside}: give the folder of the scans", "empty")
        if other:
            print(f"passed over  {other}")
        for file in found.rejected:
            _complain(f"{file.path}: {file.message}")
        if not found.scans:
            raise ScanError("no scan can be used", "empty")
        if self.previous and len(found.scans) != 1:
            raise SettingsError(f"--previous belongs to one scan, and {len(found.scans)} are given")
        return found


def check_log(path: Path) -> None:
    """Look whether a log can be written, without writing anything.

    Raises:
        SettingsError: it is a folder, a file is where a folder must be, or permission is missing.
    """
    there = nearest_existing(path)
    if path.is_dir():
        reason = "Is a directory"
    elif there != path and not there.is_dir():
        reason = "Not a directory"
    elif not os.access(there, os.W_OK):
        reason = "Permission denied"
    else:
        return
    raise SettingsError(f"{path}: the log cannot be written ({reason}): give --log another file")


class RunLog:
    """Appends one line per event to a file, after those of earlier runs; without a file it does nothing.

    File names, folders and texts of errors are left out, since they may hold a patient's name. A scan is named by its
    pseudonym, or by its number in the run when it could not be read, and an error by its reason.

    Raises:
        SettingsError: the file cannot be written.
    """

    def __init__(self, path: Path | None):
        self._file = None
        if path is not None:
            check_log(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed in __exit__

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.line(f"stopped: {kind.__name__}")
        if self._file is not None:
            self._file.close()

    def line(self, text: str) -> None:
        """Append a line with the local time; it is in the file when this returns."""
        if self._file is not None:
            self._file.write(f"{datetime.datetime.now().isoformat(timespec='seconds')} {text}\n")
            self._file.flush()


@dataclasses.dataclass(frozen=True)
class ReadScan:
    """One scan, read and prepared.

    Attributes:
        scan, prepared: the scan, and the image for the network.
        study: the patient's identity when it is kept, else None.
        labelme: where its further Labelme files go, by view; None when none are wanted.
    """

    scan: BoneScan
    prepared: PreparedCase
    study: SourceStudy | None
    labelme: dict[str, Path] | None


class ScanReader:
    """Reads and prepares the scans of a run one after the other, and refuses those whose result could not be written.

    Args:
        settings: of the run.
        preparation: of the model.
        previous: pseudonym of the scan given with --previous.

    Attributes:
        cases: files of the scans read so far -> pseudonym, also of scans that were refused after reading.
    """

    def __init__(self, settings: JobSettings, preparation: PreparationSettings, previous: str | None = None):
        self.settings, self.preparation, self.previous = settings, preparation, previous
        self.cases: dict[ScanFiles, str] = {}
        self._names: dict[str, str] = {}
        self._annotations: dict[Path, str] = {}

    def __call__(self, files: ScanFiles) -> ReadScan:
        """Read and prepare a scan.

        Raises:
            ScanError: it cannot be read or prepared, or DICOM results cannot refer to it.
            RunError: its result would overwrite something, another scan of this run has the same counts, or it is the
                previous scan itself.
        """
        settings, name = self.settings, scan_name(files.sources)
        scan = files.read(settings.allow_missing_view)
        self.cases[files] = scan.case
        if scan.case in self._names:
            raise RunError(f"{name}: has the same counts as {self._names[scan.case]}: leave one of them out")
        if scan.case == self.previous:
            raise RunError(f"{scan.case}: is also the scan given with --previous: give an earlier one")
        case_folder(settings.out, scan.case, settings.overwrite)
        study = read_source_study(files.sources) if settings.keep_identity else None
        labelme = None
        if settings.labelme is not None:
            present = [view for view in VIEWS if view not in scan.missing_views]
            labelme = annotation_paths(settings.labelme, files.sources, present)
            for path in labelme.values():
                if path in self._annotations:
                    raise RunError(
                        f"{name}: its annotation would overwrite that of {self._annotations[path]}: rename one scan"
                    )
        prepared = prepare_scan(scan, settings=self.preparation)
        # Last: a scan that gets no result does not keep another from getting it.
        self._names[scan.case] = name
        self._annotations.update(dict.fromkeys((labelme or {}).values(), name))
        return ReadScan(scan, prepared, study, labelme)


def predict_scans(task: PredictionTask) -> int:
    """Segment scans, write and print their results. One scan is in memory at a time.

    Returns:
        0 when every scan was segmented, else 1.

    Raises:
        BoneScanError: nothing could be begun.
        KeyboardInterrupt: SIGINT or SIGTERM came; the result that was begun is complete.
    """
    found, settings = task.find_scans(), task.settings
    previous = find_previous(task.previous, found.scans[0], settings.allow_missing_view) if task.previous else None
    total = len(found.scans) + len(found.rejected)
    done = 0
    with RunLog(task.log) as log:
        predictor = Predictor(task.model, task.engine, task.server, task.precision, task.deadline, task.threshold)
        model = predictor.description
        _introduce(model, predictor.engine, task.threshold)
        threshold = "" if task.threshold is None else f", threshold {task.threshold:g}"
        log.line(
            f"start: doubleunet_bs {__version__}, {model.name}, weights {model.weights_sha256[:12]}, "
            f"engine {predictor.engine}{threshold}, {total} scans"
        )
        for number, file in enumerate(found.rejected, start=len(found.scans) + 1):
            log.line(f"scan {number} of {total}: not segmented ({file.reason})")
        if isinstance(previous, BoneScan):
            previous = report_scan(previous, predictor.predict(previous))
        reader = ScanReader(settings, model.preparation, previous.result["case"] if previous else None)
        bar = tqdm(found.scans, desc="predict", unit="scan", dynamic_ncols=True, file=sys.stderr, disable=None)
        # A flag that is looked at: a signal that stops the work anywhere could leave a result unreported.
        with StopSignals() as signals, bar:
            for number, files in enumerate(bar, start=1):
                begun = time.perf_counter()
                try:
                    content = reader(files)
                    [prediction] = predictor.segment([content.prepared])
                    written = write_prediction(
                        settings, content.scan, prediction, content.study, content.labelme, previous
                    )
                except BoneScanError as error:
                    name = reader.cases.get(files, f"scan {number} of {total}")
                    reason = error.reason if isinstance(error, ScanError) else type(error).__name__
                    log.line(f"{name}: not segmented ({reason})")
                    with tqdm.external_write_mode(file=sys.stderr):
                        _complain(_named(error, files.sources))
                else:
                    done += 1
                    with tqdm.external_write_mode(file=sys.stdout):
                        print(f"\n{scan_name(files.sources)}\n{_summary(written)}", flush=True)
                    result = written.result
                    log.line(
                        f"{result['case']}: {len(result['lesions'])} areas, {result['metastatic_pixels']} pixels, "
                        f"{len(result['warnings'])} warnings, {time.perf_counter() - begun:.2f} s"
                    )
                if signals.requested:
                    raise KeyboardInterrupt
        log.line(f"end: {done} of {total} scans segmented")
    print(f"\n{done} of {total} scans segmented; results in {settings.out}")
    return 0 if done == total else 1


def rehearse_prediction(task: PredictionTask) -> int:
    """Do everything up to the network, which is not even loaded, and print what would be written.

    Returns:
        0 when every scan can be segmented, else 1.

    Raises:
        BoneScanError: nothing can be segmented with these options.
    """
    found, settings, path = task.find_scans(), task.settings, Path(task.model)
    if task.server and not path.is_dir():
        raise SettingsError(f"{path}: a dry run asks no server: name the folder of the model")
    if task.log:
        check_log(task.log)
    model = find_model(path)
    model.check_exported(task.engine)
    exported = model.saved_model or task.engine == "serving"
    _introduce(model.description, f"engine {choose_local(task.engine) if exported else 'tensorflow'}", task.threshold)
    case = None
    if task.previous:
        previous = find_previous(task.previous, found.scans[0], settings.allow_missing_view)
        if isinstance(previous, BoneScan):
            case = prepare_scan(previous, settings=model.description.preparation).case
        else:
            case = previous.result["case"]
    reader = ScanReader(settings, model.description.preparation, case)
    ready = 0
    for files in found.scans:
        try:
            content = reader(files)
        except BoneScanError as error:
            _complain(_named(error, files.sources))
            continue
        ready += 1
        print(f"\n{scan_name(files.sources)}")
        outputs = ", ".join(("result.json", *settings.outputs))
        print(f"  would be written    {settings.out / content.scan.case}: {outputs}")
        for path in (content.labelme or {}).values():
            print(f"  would be written    {path}")
        for warning in content.prepared.warnings:
            print(f"  warning             {warning}")
    total = len(found.scans) + len(found.rejected)
    print(f"\ndry run: {ready} of {total} scans would be segmented; nothing was written")
    return 0 if ready == total else 1


def _summary(written: WrittenResult) -> str:
    """What a person wants to know of one scan at once."""
    result = written.result
    lines = []
    for name, key in (("metastatic areas", None), ("metastatic pixels", "metastatic_pixels")):
        figures = [
            f"{view} {content[key] if key else sum(lesion['view'] == view for lesion in result['lesions'])}"
            for view, content in result["views"].items()
        ]
        lines.append(f"  {name:<20}{', '.join(figures)}")
    fraction = result["lesion_area"]["fraction_of_body"]
    if fraction is not None:
        lines.append(f"  {'share of body area':<20}{100 * fraction:.2f} % (not a bone scan index)")
    lines += [f"  {'warning':<20}{warning}" for warning in result["warnings"]]
    lines.append(f"  {'written':<20}{written.folder}")
    return "\n".join(lines)


def _introduce(description: ModelDescription, engine: str, threshold: float | None) -> None:
    rows, columns = description.image_shape
    print(f"model   {description.name}, {description.quality}, {rows} x {columns} pixels, {engine}")
    print(f"trained on {description.training_summary}")
    if threshold is not None:
        print(f"mask    probability of metastatic at least {threshold:g}")
    if description.quality_warning:
        print(f"warning {description.quality_warning}")
    print(f"use     {INTENDED_USE}")


def _named(error: BoneScanError, sources: Sequence[Source]) -> str:
    """The error, with the file's name before it unless it names it itself."""
    message, name = str(error), scan_name(sources)
    names = tuple(f"{one}: " for one in (name, *(source.label for source in sources)))
    return message if message.startswith(names) else f"{name}: {message}"


def _complain(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
