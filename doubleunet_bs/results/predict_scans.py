"""The work of `predict`: the scans a user named are read, segmented and written one after the other, and printed."""

import dataclasses
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from doubleunet_bs import __version__
from doubleunet_bs.bsi import choose_table
from doubleunet_bs.dicom_files.other_files import PassedOver, count_kinds
from doubleunet_bs.dicom_files.sources import Source
from doubleunet_bs.errors import BoneScanError, RunError, ScanError, SettingsError, one_line
from doubleunet_bs.files import nearest_existing
from doubleunet_bs.findings.skeleton_result import Networks, describe_models
from doubleunet_bs.inference.engines import check_choice, check_threshold, choose_local
from doubleunet_bs.inference.model_description import INTENDED_USE, ModelDescription
from doubleunet_bs.inference.model_folder import find_model
from doubleunet_bs.inference.predictor import Predictor
from doubleunet_bs.preparation.case import prepare_scan
from doubleunet_bs.results.index_page import write_overview
from doubleunet_bs.results.input_scans import choose_shard, list_scans, scan_name
from doubleunet_bs.results.patient_report import ReportScan
from doubleunet_bs.results.previous_scan import find_previous
from doubleunet_bs.results.result_files import COHORT, INDEX, JobSettings
from doubleunet_bs.results.result_folder import WrittenResult, report_scan, write_prediction
from doubleunet_bs.results.run_log import RunLog, check_log
from doubleunet_bs.results.scan_reader import COPY, ScanReader
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

    def read_pseudonyms(self) -> Pseudonyms | None:
        """What names the scans; None for a hash of their counts. BoneScanError for a file that cannot be used."""
        return Pseudonyms.load(self.identities) if self.identities else None

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
        other = count_kinds(found.passed_over)
        if not found.scans and not found.rejected:
            beside = f", only {other}" if other else ""
            raise ScanError(f"{', '.join(self.scans)}: no scan is in it{beside}: give the folder of the scans", "empty")
        if self.shard:
            found = choose_shard(found, self.shard)
        found = _without_copies(found)
        if self.shard and not found.scans and not found.rejected:
            return found
        for file in found.rejected:
            _complain(f"{file.path}: {file.message}")
        if not found.scans:
            raise ScanError("no scan can be used", "empty")
        if self.previous and len(found.scans) != 1:
            raise SettingsError(f"--previous belongs to one scan, and {len(found.scans)} are given")
        return found

    def open_skeleton(self) -> Predictor | None:
        """The model of the skeleton, computed as that of the lesions; None when there is none."""
        if self.skeleton is None:
            return None
        return Predictor(self.skeleton, self.engine, self.server, self.precision, self.deadline, skeleton=True)


def _without_copies(found: ScanFolder) -> ScanFolder:
    """Pass over copies of a file, which have the same counts: nothing of them is lost, and they are no failure."""
    copies = [file for file in found.rejected if file.reason == COPY]
    for file in copies:
        print(f"warning: {one_line(file.path)}: {file.message}", file=sys.stderr)
    rejected = tuple(file for file in found.rejected if file not in copies)
    return ScanFolder(found.scans, rejected, (*found.passed_over, *(PassedOver(file.path, "copy") for file in copies)))


def predict_scans(task: PredictionTask) -> int:
    """Segment scans, write and print their results. One scan is in memory at a time.

    Returns:
        0 when every scan was segmented or was done before, else 1.

    Raises:
        BoneScanError: nothing could be begun, or the table of files cannot be written.
        KeyboardInterrupt: SIGINT or SIGTERM came; the result that was begun is complete.
    """
    begun = time.perf_counter()
    found, settings, pseudonyms = task.find_scans(), task.settings, task.read_pseudonyms()
    if task.server is None:
        describe_models(task.model, task.skeleton)
    if not found.scans and not found.rejected:
        print(f"0 scans are in part {task.shard[0]} of {task.shard[1]}" if task.shard else "0 scans")
        return 0
    previous = find_previous(task.previous, found.scans[0], settings.allow_missing_view) if task.previous else None
    total, counts = len(found.scans) + len(found.rejected), Counts(failed=len(found.rejected))
    with RunLog(task.log) as log:
        predictor = Predictor(task.model, task.engine, task.server, task.precision, task.deadline, task.threshold)
        model = predictor.description
        networks = Networks(predictor, task.open_skeleton(), task.weights)
        bones = networks.skeleton.description if networks.skeleton else None
        _introduce(model, bones, predictor.engine, task.threshold)
        threshold = "" if task.threshold is None else f", threshold {task.threshold:g}"
        log.line(
            f"start: doubleunet_bs {__version__}, {model.name}, weights {model.weights_sha256[:12]}, "
            f"engine {predictor.engine}{threshold}, {total} scans"
        )
        for number, file in enumerate(found.rejected, start=len(found.scans) + 1):
            log.line(f"scan {number} of {total}: not segmented ({file.reason})")
        if isinstance(previous, BoneScan):
            previous = report_scan(previous, *networks.segment(previous, predictor.prepare(previous)))
        earlier = _names_of(previous.result) if previous else ()
        reader = ScanReader(settings, model, task.threshold, pseudonyms, earlier, bones, task.weights)
        files_of: dict[str, Sequence[str]] = {}
        copies: list[PassedOver] = []
        bar = tqdm(found.scans, desc="predict", unit="scan", dynamic_ncols=True, file=sys.stderr, disable=None)
        try:
            # A flag that is looked at: a signal that stops the work anywhere could leave a result unreported.
            with StopSignals() as signals, bar:
                for number, files in enumerate(bar, start=1):
                    started = time.perf_counter()
                    try:
                        result = _predict_one(files, reader, networks, previous)
                    except BoneScanError as error:
                        copy = _is_copy(error)
                        if copy:
                            copies.append(PassedOver(scan_name(files.sources), "copy"))
                        else:
                            counts.failed += 1
                        name = reader.cases.get(files, f"scan {number} of {total}")
                        reason = error.reason if isinstance(error, ScanError) else type(error).__name__
                        log.line(f"{name}: not segmented ({reason})")
                        with tqdm.external_write_mode(file=sys.stderr):
                            _complain(_named(error, files.sources), "warning" if copy else "error")
                    else:
                        files_of[reader.cases[files]] = files.full_paths
                        counts.add(result)
                        log.line(f"{reader.cases[files]}: {_short(result)}, {time.perf_counter() - started:.2f} s")
                    if signals.requested:
                        raise KeyboardInterrupt
        finally:
            # Also of an interrupted run: a result without its line could not be led back to its file.
            if files_of:
                save_file_table(settings.files_file, files_of)
        seconds = time.perf_counter() - begun
        total -= len(copies)
        log.line(f"end: {counts.text(total)}, {seconds:.2f} s")
    print(f"\n{counts.text(total)} in {seconds:.0f} s")
    if other := count_kinds((*found.passed_over, *copies)):
        print(f"passed over: {other}")
    print(_where(settings))
    return 1 if counts.failed else 0


def _predict_one(
    files: ScanFiles,
    reader: ScanReader,
    networks: Networks,
    previous: ReportScan | None,
) -> dict[str, Any] | None:
    """Segment a scan, write and print its result, which is returned; None when it was done before."""
    content = reader(files)
    if content is None:
        return None
    prediction, index = networks.segment(content.scan, content.prepared)
    try:
        written = write_prediction(
            reader.settings, content.scan, prediction, content.study, content.labelme, previous, index
        )
    except RunError:
        # Another process may have been faster.
        if reader.settings.overwrite or not reader.is_done(content.scan):
            raise
        return None
    with tqdm.external_write_mode(file=sys.stdout):
        print(f"\n{scan_name(files.sources)}\n{_summary(written)}", flush=True)
    return written.result


@dataclasses.dataclass
class Counts:
    """How many scans of a run were segmented, how many of them with findings, were done before, or failed."""

    segmented: int = 0
    findings: int = 0
    before: int = 0
    failed: int = 0

    def add(self, result: dict[str, Any] | None) -> None:
        """Count a scan by its result; None for one that was done before."""
        if result is None:
            self.before += 1
        else:
            self.segmented += 1
            self.findings += bool(result["lesions"])

    def text(self, total: int) -> str:
        """One line; what is zero is left out."""
        others = ((self.findings, "with findings"), (self.before, "done before"), (self.failed, "failed"))
        return ", ".join(
            [f"{self.segmented} of {total} scans segmented", *(f"{count} {what}" for count, what in others if count)]
        )


def _short(result: dict[str, Any] | None) -> str:
    if result is None:
        return "done before"
    figures = f"{len(result['lesions'])} areas, {result['metastatic_pixels']} pixels"
    return f"{figures}, {len(result['warnings'])} warnings"


def _names_of(result: dict[str, Any]) -> tuple[str, ...]:
    """What a scan can be recognised by: its pseudonym, and the hash of its counts in newer results."""
    return tuple(filter(None, (result["case"], result.get("pixel_sha256"))))


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


def rehearse_prediction(task: PredictionTask) -> int:
    """Do everything up to the network, which is not even loaded, and print what would be written.

    Returns:
        0 when every scan can be segmented, else 1.

    Raises:
        BoneScanError: nothing can be segmented with these options.
    """
    found, settings, path = task.find_scans(), task.settings, Path(task.model)
    for name in filter(None, (task.model, task.skeleton)):
        if task.server and not Path(name).is_dir():
            raise SettingsError(f"{name}: a dry run asks no server: name the folder of the model")
    if task.log:
        check_log(task.log)
    bones = describe_models(task.model, task.skeleton)[1] if task.skeleton else None
    model = find_model(path)
    if task.engine != "serving":
        model.export()
    _introduce(model.description, bones, f"engine {choose_local(task.engine)}", task.threshold)
    earlier: tuple[str, ...] = ()
    if task.previous:
        previous = find_previous(task.previous, found.scans[0], settings.allow_missing_view)
        if isinstance(previous, BoneScan):
            prepare_scan(previous, settings=model.description.preparation)
            earlier = previous.case, previous.pixel_sha256
        else:
            earlier = _names_of(previous.result)
    reader = ScanReader(
        settings, model.description, task.threshold, task.read_pseudonyms(), earlier, bones, task.weights
    )
    ready = before = copies = 0
    for files in found.scans:
        try:
            content = reader(files)
        except BoneScanError as error:
            copies += _is_copy(error)
            _complain(_named(error, files.sources), "warning" if _is_copy(error) else "error")
            continue
        print(f"\n{scan_name(files.sources)}")
        if content is None:
            before += 1
            print(f"  done before         {settings.out / reader.cases[files]}")
            continue
        ready += 1
        outputs = ", ".join(("result.json", *settings.outputs))
        print(f"  would be written    {settings.out / content.scan.case}: {outputs}")
        for path in (content.labelme or {}).values():
            print(f"  would be written    {path}")
        for warning in content.prepared.warnings:
            print(f"  warning             {warning}")
    total = len(found.scans) + len(found.rejected) - copies
    skipped = f", {before} done before" if before else ""
    print(f"\ndry run: {ready} of {total} scans would be segmented{skipped}; nothing was written")
    return 0 if ready + before == total else 1


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


def _is_copy(error: BoneScanError) -> bool:
    return isinstance(error, ScanError) and error.reason == COPY


def _complain(message: str, kind: str = "error") -> None:
    print(f"{kind}: {message}", file=sys.stderr)
