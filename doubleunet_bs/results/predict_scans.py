"""The work of `predict`: the scans a user named are read, segmented and written, and what is printed meanwhile.

`ScanReader` reads and prepares, a `Predictor` segments, `result_folder` writes. `streaming` runs the three at the same
time.
"""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from doubleunet_bs import __version__
from doubleunet_bs.constants import VIEWS
from doubleunet_bs.errors import BoneScanError, RunError, ScanError, SettingsError
from doubleunet_bs.files import nearest_existing
from doubleunet_bs.inference.engines import check_choice, choose_local
from doubleunet_bs.inference.model_description import INTENDED_USE, ModelDescription
from doubleunet_bs.inference.model_folder import find_model
from doubleunet_bs.inference.predictor import Prediction, Predictor
from doubleunet_bs.preparation.case import PreparedCase, prepare_scan
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.results.input_scans import list_scans, scan_name
from doubleunet_bs.results.labelme_output import annotation_paths
from doubleunet_bs.results.previous_scan import check_another, find_previous, previous_case, segment_previous
from doubleunet_bs.results.result_files import JobSettings, case_folder
from doubleunet_bs.results.result_folder import WrittenResult, write_prediction
from doubleunet_bs.results.run_log import RunLog, check_log
from doubleunet_bs.results.source_study import SourceStudy, read_source_study
from doubleunet_bs.results.streaming import stream
from doubleunet_bs.scans.bone_scan import BoneScan
from doubleunet_bs.scans.scan_files import ScanFiles, ScanFolder
from doubleunet_bs.scans.sources import Source
from doubleunet_bs.stop_signals import StopSignals


@dataclasses.dataclass(frozen=True)
class ModelChoice:
    """Which model segments, and with what; see `inference.predictor.Predictor`.

    Attributes:
        model: folder of a fold or of an exported model, or its name on the server.
        engine: "auto", "tensorflow", "openvino" or "serving".
        server: address, for "serving".
        precision: "auto" or "float32".
        deadline: seconds for an answer of the server; None for the default.
    """

    model: str
    engine: str = "auto"
    server: str | None = None
    precision: str = "auto"
    deadline: float | None = None


@dataclasses.dataclass(frozen=True)
class PredictionTask:
    """What a user asks `predict` for.

    Attributes:
        scans: files, folders and zip archives.
        choice: the model.
        settings: what to write, and where.
        previous: result folder or scan of an earlier date, for the report; None for none.
        log: file for a log; None for none.
    """

    scans: Sequence[str]
    choice: ModelChoice
    settings: JobSettings
    previous: str | None = None
    log: Path | None = None

    def find_scans(self) -> ScanFolder:
        """The scans to segment, once the options have been found possible. Unusable files are reported.

        Raises:
            SettingsError: options that contradict each other, or a path that does not exist.
            ScanError: there is no usable scan.
        """
        choice, settings = self.choice, self.settings
        check_choice(choice.engine, choice.precision, choice.server, choice.deadline)
        for option, path in (("out", settings.out), ("labelme", settings.labelme)):
            if path is not None and not nearest_existing(path).is_dir():
                raise SettingsError(f"{nearest_existing(path)}: is a file; --{option} names a folder")
        if settings.keep_identity and "dicom" not in settings.outputs:
            raise SettingsError("--keep-identity needs the DICOM results: add dicom to --outputs")
        if self.previous and "report" not in settings.outputs:
            raise SettingsError("--previous needs the report: add report to --outputs")
        found = list_scans(self.scans, settings.allow_missing_view)
        if not found.scans and not found.rejected:
            raise ScanError(f"{', '.join(self.scans)}: no file in it", "empty")
        for file in found.rejected:
            _complain(f"{file.path}: {file.message}")
        if not found.scans:
            raise ScanError("no scan can be used", "empty")
        if self.previous and len(found.scans) != 1:
            raise SettingsError(f"--previous belongs to one scan, and {len(found.scans)} are given")
        return found


@dataclasses.dataclass(frozen=True)
class ReadScan:
    """One scan, read and prepared.

    Attributes:
        scan, prepared: the scan, and the image for the network.
        study: the patient's identity when it is kept, else None.
        labelme: where its further Labelme files go, by view; None when none are wanted.
        begun: when its reading began, by `time.perf_counter`.
    """

    scan: BoneScan
    prepared: PreparedCase
    study: SourceStudy | None
    labelme: dict[str, Path] | None
    begun: float


class ScanReader:
    """Reads and prepares the scans of a run one after the other, and refuses those whose result could not be written.

    Args:
        settings: of the run.
        preparation: of the model.

    Attributes:
        cases: files of the scans read so far -> pseudonym, also of scans that were refused after reading.
    """

    def __init__(self, settings: JobSettings, preparation: PreparationSettings):
        self.settings, self.preparation = settings, preparation
        self.cases: dict[ScanFiles, str] = {}
        self._names: dict[str, str] = {}
        self._annotations: dict[Path, str] = {}

    def __call__(self, files: ScanFiles) -> ReadScan:
        """Read and prepare a scan.

        Raises:
            ScanError: it cannot be read or prepared, or DICOM results cannot refer to it.
            RunError: its result would overwrite something, or another scan of this run has the same counts.
        """
        begun = time.perf_counter()
        settings, name = self.settings, scan_name(files.sources)
        scan = files.read(settings.allow_missing_view)
        self.cases[files] = scan.case
        if scan.case in self._names:
            raise RunError(f"{name}: has the same counts as {self._names[scan.case]}: leave one of them out")
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
        return ReadScan(scan, prepared, study, labelme, begun)


def predict_scans(task: PredictionTask) -> int:
    """Segment scans, write and print their results.

    Returns:
        0 when every scan was segmented, else 1.

    Raises:
        BoneScanError: nothing could be begun.
        KeyboardInterrupt: SIGINT or SIGTERM came; the results that were begun are complete.
    """
    found, settings, choice = task.find_scans(), task.settings, task.choice
    earlier = find_previous(task.previous, found.scans[0], settings.allow_missing_view) if task.previous else None
    total = len(found.scans) + len(found.rejected)
    done = 0
    with RunLog(task.log) as log:
        predictor = Predictor(choice.model, choice.engine, choice.server, choice.precision, choice.deadline)
        _introduce(predictor.description, predictor.engine)
        reader = ScanReader(settings, predictor.description.preparation)
        weights = predictor.description.weights_sha256[:12]
        log.line(
            f"start: doubleunet_bs {__version__}, {predictor.description.name}, weights {weights}, "
            f"engine {predictor.engine}, {total} scans"
        )
        for number, file in enumerate(found.rejected, start=len(found.scans) + 1):
            log.line(f"scan {number} of {total}: not segmented ({file.reason})")
        previous = segment_previous(earlier, predictor, settings.allow_missing_view) if earlier else None

        def segment(content: ReadScan) -> Prediction:
            if previous is not None:
                check_another(content.scan.case, previous.result["case"])
            return predictor.segment([content.prepared])[0]

        def write(content: ReadScan, prediction: Prediction) -> tuple[WrittenResult, float]:
            written = write_prediction(settings, content.scan, prediction, content.study, content.labelme, previous)
            return written, time.perf_counter() - content.begun

        bar = tqdm(
            total=len(found.scans), desc="predict", unit="scan", dynamic_ncols=True, file=sys.stderr, disable=None
        )
        signals = StopSignals()
        outcomes = stream(found.scans, reader, segment, write, stop=lambda: signals.requested)
        with signals, bar, contextlib.closing(outcomes):
            for number, (files, outcome) in enumerate(outcomes, start=1):
                bar.update()
                if isinstance(outcome, BoneScanError):
                    log.failure(reader.cases.get(files, f"scan {number} of {total}"), outcome)
                    with tqdm.external_write_mode(file=sys.stderr):
                        _complain(_named(outcome, files.sources))
                    continue
                done += 1
                written, seconds = outcome
                with tqdm.external_write_mode(file=sys.stdout):
                    print(f"\n{scan_name(files.sources)}\n{_summary(written)}", flush=True)
                areas, warnings = len(written.result["lesions"]), len(written.result["warnings"])
                log.line(
                    f"{written.result['case']}: {areas} areas, {written.result['metastatic_pixels']} pixels, "
                    f"{warnings} warnings, {seconds:.2f} s"
                )
            # A flag that is looked at, since Python swallows a KeyboardInterrupt that comes while it clears up objects.
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
    found, settings, choice = task.find_scans(), task.settings, task.choice
    path = Path(choice.model)
    if choice.server and not path.is_dir():
        raise SettingsError(f"{path}: a dry run asks no server: name the folder of the model")
    if task.log:
        check_log(task.log)
    model = find_model(path)
    model.check_exported(choice.engine)
    exported = model.saved_model or choice.engine == "serving"
    _introduce(model.description, f"engine {choose_local(choice.engine) if exported else 'tensorflow'}")
    previous = None
    if task.previous:
        earlier = find_previous(task.previous, found.scans[0], settings.allow_missing_view)
        previous = previous_case(earlier, model.description.preparation, settings.allow_missing_view)
    reader = ScanReader(settings, model.description.preparation)
    ready = 0
    for files in found.scans:
        try:
            content = reader(files)
            if previous is not None:
                check_another(content.scan.case, previous)
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


def _introduce(description: ModelDescription, engine: str) -> None:
    rows, columns = description.image_shape
    print(f"model   {description.name}, {rows} x {columns} pixels, {engine}")
    print(f"use     {INTENDED_USE}")


def _named(error: BoneScanError, sources: Sequence[Source]) -> str:
    """The error, with the file's name before it unless it names it itself."""
    message, name = str(error), scan_name(sources)
    names = tuple(f"{one}: " for one in (name, *(source.label for source in sources)))
    return message if message.startswith(names) else f"{name}: {message}"


def _complain(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
