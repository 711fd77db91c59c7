"""The work of `predict`: the scans a user named are read, segmented and written one after the other, and printed."""

import dataclasses
import datetime
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from doubleunet_bs import __version__
from doubleunet_bs.bsi import choose_table
from doubleunet_bs.dicom_files.other_files import PassedOver, count_kinds
from doubleunet_bs.dicom_files.sources import Source
from doubleunet_bs.errors import BoneScanError, RunError, ScanError, SettingsError, one_line, os_reason
from doubleunet_bs.files import nearest_existing
from doubleunet_bs.findings.skeleton_result import Networks, describe_models
from doubleunet_bs.inference.engines import check_choice, check_threshold, choose_local
from doubleunet_bs.inference.model_description import INTENDED_USE, ModelDescription
from doubleunet_bs.inference.model_folder import find_model
from doubleunet_bs.inference.predictor import Predictor
from doubleunet_bs.preparation.case import prepare_scan
from doubleunet_bs.results.input_scans import COPY, ScanReader, choose_shard, find_previous, list_scans, scan_name
from doubleunet_bs.results.overview import write_overview
from doubleunet_bs.results.patient_report import ReportScan
from doubleunet_bs.results.result_files import COHORT, INDEX, JobSettings
from doubleunet_bs.results.result_folder import WrittenResult, report_scan, write_prediction
from doubleunet_bs.results.stored_result import find_results
from doubleunet_bs.scans.bone_scan import BoneScan
from doubleunet_bs.scans.pseudonyms import Pseudonyms, save_file_table
from doubleunet_bs.scans.scan_files import ScanFiles, ScanFolder
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
        identities: file of a cohort's pseudonyms, from `prepare`; None for pseudonyms from the counts.
        shard: the part of the scans to segment, and the number of parts; None for all.
        skeleton: model of the skeleton for the Bone Scan Index; None for none. weights: name of its weight table; None
            chooses by the sex in the header.
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
    identities: Path | None = None
    shard: tuple[int, int] | None = None
    skeleton: str | None = None
    weights: str | None = None

    def find_scans(self) -> ScanFolder:
        """The scans to segment, once the options have been found possible. Unusable files are reported.

        Raises:
            SettingsError: options that contradict each other, or a path that does not exist.
            ScanError: there is no usable scan.
        """
        settings = self.settings
        check_choice(self.engine, self.precision, self.server, self.deadline)
        check_threshold(self.threshold)
        if self.weights is not None:
            choose_table(self.weights)
            if self.skeleton is None:
                raise SettingsError("--weights needs --skeleton: there is no Bone Scan Index without it")
        for option, path in (("out", settings.out), ("labelme", settings.labelme)):
            if path is not None and not nearest_existing(path).is_dir():
                raise SettingsError(f"{nearest_existing(path)}: is a file; --{option} names a folder")
        if settings.keep_identity and "dicom" not in settings.outputs:
            raise SettingsError("--keep-identity needs the DICOM results: add dicom to --outputs")
        if self.previous and not {"report", "dicom"} & set(settings.outputs):
            raise SettingsError("--previous needs a report: add report or dicom to --outputs")
        parent = nearest_existing(settings.files_file.parent)
        if not os.access(parent, os.W_OK):
            raise SettingsError(f"{parent}: no permission for {settings.files_file.name}: give --out a folder in yours")
        found = list_scans(self.scans, settings.allow_missing_view)
        if not found.scans and not found.rejected:
            raise ScanError(found.nothing(", ".join(self.scans)), "empty")
        if self.shard:
            found = choose_shard(found, self.shard)
        elif not found.scans and len(found.rejected) == 1:
            [only] = found.rejected
            raise ScanError(f"{one_line(only.path)}: {only.message}", only.reason)
        for file in found.rejected:
            _complain(f"{one_line(file.path)}: {file.message}", file.reason == COPY)
        if not found.scans and not (self.shard and all(file.reason == COPY for file in found.rejected)):
            raise ScanError("no scan can be used", "empty")
        if self.previous and len(found.scans) > 1:
            raise SettingsError(f"--previous belongs to one scan, and {len(found.scans)} are given")
        return found


def predict_scans(task: PredictionTask, dry_run: bool = False) -> int:
    """Segment scans, write and print their results. One scan is in memory at a time.

    Args:
        task: what is asked for.
        dry_run: stop before the network, which is not even loaded, and print what would be written.

    Returns:
        0 when every scan was segmented or was done before, else 1.

    Raises:
        BoneScanError: nothing could be begun, or the table of files cannot be written.
        KeyboardInterrupt: SIGINT or SIGTERM came; the result that was begun is complete.
    """
    begun = time.perf_counter()
    found, settings = task.find_scans(), task.settings
    served = [name for name in (task.model, task.skeleton) if name and not Path(name).is_dir()]
    if dry_run and task.server and served:
        raise SettingsError(f"{served[0]}: a dry run asks no server: name the folder of the model")
    with RunLog(None if dry_run else task.log) as log:
        if dry_run or task.server is None:
            # Before a network is loaded, and in every part, also in an empty one.
            model, bones = describe_models(task.model, task.skeleton)
        if not found.scans:
            print(f"0 scans are in part {task.shard[0]} of {task.shard[1]}" if task.shard else "0 scans")
            return 0
        pseudonyms = Pseudonyms.load(task.identities) if task.identities else None
        previous = find_previous(task.previous, found.scans[0], settings.allow_missing_view) if task.previous else None
        copies = [PassedOver(file.path, "copy") for file in found.rejected if file.reason == COPY]
        counts = Counter(failed=len(found.rejected) - len(copies))
        total = len(found.scans) + counts["failed"]
        files_of: dict[str, Sequence[str]] = {}
        networks = None
        if dry_run:
            engine = f"engine {choose_local(task.engine)}"
            if task.engine != "serving":
                find_model(Path(task.model)).export()
        else:
            how = task.engine, task.server, task.precision, task.deadline
            lesions = Predictor(task.model, *how, task.threshold)
            skeleton = Predictor(task.skeleton, *how, skeleton=True) if task.skeleton else None
            networks = Networks(lesions, skeleton, task.weights)
            model, bones, engine = lesions.description, skeleton.description if skeleton else None, lesions.engine
        _introduce(model, bones, engine, task.threshold)
        threshold = "" if task.threshold is None else f", threshold {task.threshold:g}"
        log.line(
            f"start: doubleunet_bs {__version__}, {model.name}, weights {model.weights_sha256[:12]}, "
            f"engine {engine}{threshold}, {total} scans"
        )
        for number, file in enumerate(found.rejected, start=len(found.scans) + 1):
            log.line(f"scan {number} of {total}: not segmented ({file.reason})")
        names: tuple[str, ...] = ()
        if isinstance(previous, BoneScan):
            names, prepared = (previous.case, previous.pixel_sha256), prepare_scan(previous, settings=model.preparation)
            previous = report_scan(previous, *networks.segment(previous, prepared)) if networks else None
        elif previous:
            names = previous.result["case"], previous.result["pixel_sha256"]
        reader = ScanReader(settings, model, task.threshold, pseudonyms, names, bones, task.weights)
        bar = tqdm(found.scans, desc="predict", unit="scan", dynamic_ncols=True, file=sys.stderr, disable=None)
        try:
            # A flag that is looked at: a signal that stops the work anywhere could leave a result unreported.
            with StopSignals() as signals, bar:
                for number, files in enumerate(bar, start=1):
                    started = time.perf_counter()
                    try:
                        said = _predict_one(files, reader, networks, previous, counts)
                    except BoneScanError as error:
                        reason = error.reason if isinstance(error, ScanError) else type(error).__name__
                        if reason == COPY:
                            copies.append(PassedOver(scan_name(files.sources), "copy"))
                            total -= 1
                        counts["failed"] += reason != COPY
                        log.line(f"{reader.cases.get(files, f'scan {number} of {total}')}: not segmented ({reason})")
                        with tqdm.external_write_mode(file=sys.stderr):
                            _complain(_named(error, files.sources), reason == COPY)
                    else:
                        files_of[reader.cases[files]] = files.full_paths
                        log.line(f"{reader.cases[files]}: {said}, {time.perf_counter() - started:.2f} s")
                    if signals.requested:
                        raise KeyboardInterrupt
        finally:
            # Also of an interrupted run: a result without its line could not be led back to its file.
            if files_of and not dry_run:
                save_file_table(settings.files_file, files_of)
        seconds = time.perf_counter() - begun
        others = (("findings", "with findings"), ("before", "done before"), ("failed", "failed"))
        said = "".join(f", {counts[name]} {what}" for name, what in others if counts[name])
        done = f"{counts['done']} of {total} scans {'would be ' * dry_run}segmented"
        log.line(f"end: {done}{said}, {seconds:.2f} s")
    if dry_run:
        print(f"\ndry run: {done}{said}; nothing was written")
    else:
        print(f"\n{done} in {seconds:.0f} s{said}")
        if other := count_kinds((*found.passed_over, *copies)):
            print(f"passed over: {other}")
        print(_where(settings))
    return 1 if counts["failed"] else 0


def _predict_one(
    files: ScanFiles, reader: ScanReader, networks: Networks | None, previous: ReportScan | None, counts: Counter
) -> str:
    """Segment a scan, write and print its result, and count it; returns a line for the log. Without networks it only
    prints what would be written."""
    content = reader(files)
    if content is None:
        counts["before"] += 1
        return "done before"
    settings, name = reader.settings, scan_name(files.sources)
    if networks is None:
        places = [f"{settings.out / content.scan.case}: {', '.join(('result.json', *settings.outputs))}"]
        lines = [f"  would be written    {place}" for place in (*places, *(content.labelme or {}).values())]
        lines += [f"  warning             {warning}" for warning in content.prepared.warnings]
        print(f"\n{name}", *lines, sep="\n")
        counts["done"] += 1
        return ""
    prediction, index = networks.segment(content.scan, content.prepared)
    written = write_prediction(settings, content.scan, prediction, content.study, content.labelme, previous, index)
    with tqdm.external_write_mode(file=sys.stdout):
        print(f"\n{name}\n{_summary(written)}", flush=True)
    result = written.result
    counts.update(done=1, findings=bool(result["lesions"]))
    figures = f"{len(result['lesions'])} areas, {result['metastatic_pixels']} pixels"
    return f"{figures}, {len(result['warnings'])} warnings"


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
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed in __exit__
            except OSError as cause:
                raise SettingsError(
                    f"{path}: cannot be written ({os_reason(cause)}): give --log another file"
                ) from None

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.line(f"stopped: {kind.__name__}")
        if self._file is not None:
            self._file.close()

    def line(self, text: str) -> None:
        """Append a line with the local time; it is in the file when this returns."""
        if self._file is not None:
            try:
                self._file.write(f"{datetime.datetime.now().isoformat(timespec='seconds')} {text}\n")
                self._file.flush()
            except OSError as cause:
                raise RunError(f"{self._file.name}: the log cannot be written ({os_reason(cause)})") from None


def _where(settings: JobSettings) -> str:
    """Write the index and the table of all results in the folder, and say where everything is."""
    if not settings.out.is_dir() or not find_results([settings.out]):
        return "nothing was written"
    problems = write_overview(settings.out)
    lines = [f"results in {settings.out}: {INDEX}, {COHORT}"]
    if problems:
        lines.append(f"warning: {len(problems)} earlier results cannot be read, doubleunet-bs collect names them")
    lines.append(f"file of each case, for you only: {settings.files_file}")
    return "\n".join(lines)


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
    if result["benign"]:
        figures = [f"{view} {found['areas']}" for view, found in result["benign"].items()]
        lines.append(f"  {'benign areas':<20}{', '.join(figures)}")
    fraction = result["lesion_area"]["fraction_of_body"]
    if fraction is not None:
        lines.append(f"  {'share of body area':<20}{100 * fraction:.2f} % (not a bone scan index)")
    index = result["bone_scan_index"]
    if index is not None:
        views = ", ".join(f"{view} {value:.2f} %" for view, value in index["views"].items())
        lines.append(f"  {'bone scan index':<20}{index['value']:.2f} % by {index['table']} ({views})")
        if "change" in index:
            lines.append(f"  {'change of the index':<20}{index['change']['text']}")
    lines += [f"  {'warning':<20}{warning}" for warning in result["warnings"]]
    lines.append(f"  {'written':<20}{written.folder}")
    return "\n".join(lines)


def _introduce(
    description: ModelDescription, bones: ModelDescription | None, engine: str, threshold: float | None
) -> None:
    if bones:
        print(f"skeleton {bones.name}, {bones.quality}")
    rows, columns = description.image_shape
    print(f"model   {description.name}, {description.quality}, {rows} x {columns} pixels, {engine}")
    print(f"trained on {description.training_summary}")
    if threshold is not None:
        print(f"mask    probability of metastatic at least {threshold:g}")
    for kind, one in (("", description), ("skeleton: ", bones)):
        if one and one.quality_warning:
            print(f"warning {kind}{one.quality_warning}")
    print(f"use     {INTENDED_USE}")


def _named(error: BoneScanError, sources: Sequence[Source]) -> str:
    """The error, with the file's name before it unless it names it itself."""
    message, name = str(error), scan_name(sources)
    names = tuple(f"{one}: " for one in (name, *(source.label for source in sources)))
    return message if message.startswith(names) else f"{name}: {message}"


def _complain(message: str, harmless: bool) -> None:
    print(f"{'warning' if harmless else 'error'}: {message}", file=sys.stderr)
