"""The node at work: one study after the other is segmented, while threads receive, send and answer the monitor."""

import threading
import time
import traceback
from pathlib import Path

import pydicom

from doubleunet_bs import __version__
from doubleunet_bs.dicom_results.source_study import read_source_study
from doubleunet_bs.errors import BoneScanError, RunError, ScanError, ServerError, SettingsError
from doubleunet_bs.findings.skeleton_result import Networks, describe_models
from doubleunet_bs.inference.model_description import INTENDED_USE
from doubleunet_bs.inference.predictor import Predictor
from doubleunet_bs.node.monitor import EventLog, Monitor
from doubleunet_bs.node.receiver import RECEIVED_CLASSES, Receiver, WatchFolder
from doubleunet_bs.node.sender import Sender
from doubleunet_bs.node.settings import NodeSettings
from doubleunet_bs.node.spool import ASIDE, CRASHED, FAILED, RECEIVING, Spool, Study
from doubleunet_bs.results.input_scans import list_scans
from doubleunet_bs.results.result_files import JobSettings
from doubleunet_bs.results.result_folder import write_prediction
from doubleunet_bs.stop_signals import StopSignals

ATTEMPTS = 3
"""Of a study that fails, or during which the node ends. Then it is set aside."""
FIRST_PAUSE = 60.0
"""Seconds until a study is tried again, ten times as long after the second time."""
LOOK_SECONDS = 1.0
SERVER_AWAY, MODEL_UNUSABLE = "model server unavailable", "model cannot be used"
HEALING_REASONS = {"unreadable", "decoder"}
"""Of a `ScanError` that the machine is to blame for: a file could not be read, a decoder did not start."""
THIS_MACHINE = ("127.0.0.1", "::1", "localhost")
WATCH_SECONDS, CLEAN_SECONDS = 5.0, 3600.0


def run_node(settings: NodeSettings) -> int:
    """Receive, segment and send until SIGTERM or SIGINT; the study that was begun is finished first.

    Returns:
        0.

    Raises:
        BoneScanError: the node cannot begin.
    """
    spool, log = Spool(settings.spool, [one.name for one in settings.destinations]), EventLog()
    node = _Node(settings, spool, log)
    stop = threading.Event()
    senders = [Sender(one, settings, spool, log, stop) for one in settings.destinations]
    receiver = monitor = None

    def problem() -> str:
        dead = [one.name for one in senders if not one.is_alive()]
        if dead:
            return f"stopped: {', '.join(dead)}"
        return "disk-full" if node.disk_is_full() else node.trouble

    try:
        with StopSignals() as signals:
            node.open_model()
            receiver = Receiver(settings, spool, log) if settings.receive else None
            for sender in senders:
                sender.start()
            # Last: who asks it learns that the node accepts scans.
            monitor = Monitor(settings.monitor, spool, log, problem) if settings.monitor else None
            log("ready", version=__version__)
            node.work(signals)
    finally:
        stop.set()
        if receiver is not None:
            receiver.stop()
        for sender in senders:
            if sender.is_alive():
                sender.join(5)
        if monitor is not None:
            monitor.stop()
        spool.close()
    log("stopped")
    return 0


class _Node:
    """Segments the studies of the spool.

    Attributes:
        trouble: why no study can be segmented at present; "" when all is well.
    """

    def __init__(self, settings: NodeSettings, spool: Spool, log: EventLog):
        self.settings, self.spool, self.log = settings, spool, log
        self.trouble = ""
        self._networks: Networks | None = None
        self._watch = WatchFolder(settings, spool, log) if settings.watch else None
        self._next_watch = self._next_clean = self._next_open = 0.0
        for name, number in spool.unsent.items():
            log("destination no longer configured", destination=name, unsent_results=number)

    def open_model(self) -> None:
        """Load the models. A model server may be started later: then `step` asks it again.

        Raises:
            BoneScanError: a model is missing or damaged, or the two are prepared differently.
        """
        chosen = self.settings
        how = chosen.engine, chosen.server, chosen.precision, chosen.deadline
        try:
            skeleton = Predictor(chosen.skeleton, *how, skeleton=True) if chosen.skeleton else None
            self._networks = Networks(Predictor(chosen.model, *how), skeleton, chosen.weights)
        except ServerError as error:
            if self.trouble != SERVER_AWAY:
                self.log(SERVER_AWAY, reason=str(error))
            self.trouble = SERVER_AWAY
        else:
            self.trouble = ""
            for one in filter(None, (self._networks.lesions, self._networks.skeleton)):
                model = one.description
                self.log("model", name=model.name, weights=model.weights_sha256[:12], engine=one.engine)

    def disk_is_full(self) -> bool:
        """Whether the spool has less free space than it must keep."""
        return self.spool.is_full(self.settings.min_free_mb)

    def work(self, signals: StopSignals) -> None:
        """Segment studies as they become due, until a signal comes."""
        while not signals.requested:
            try:
                if self.step():
                    continue
            except OSError as error:
                # A full disk, a share that is gone: the node waits until it is cured.
                self._say_trouble(error.strerror or type(error).__name__)
            time.sleep(LOOK_SECONDS)

    def step(self) -> bool:
        """Look at the watch folder, remove old files, ask for the model and segment a study, each when it is due.

        Returns:
            Whether a study was segmented.
        """
        now, trouble = time.monotonic(), ""
        if now >= self._next_clean:
            self._next_clean = now + CLEAN_SECONDS
            if number := self.spool.remove_old(self.settings.keep_days):
                self.log("removed old files", studies=number)
        if self._watch and now >= self._next_watch:
            self._next_watch = now + WATCH_SECONDS
            try:
                self._watch.look()
            except OSError as error:
                trouble = f"watch folder: {error.strerror}"
        study = None
        if self.disk_is_full():
            trouble = "disk-full"
        elif (networks := self._networks or self._reopen_model()) and (study := self.spool.next_study()):
            self.segment(study, networks)
        if trouble or self._networks:
            self._say_trouble(trouble)
        return study is not None

    def _say_trouble(self, reason: str) -> None:
        if reason and reason != self.trouble:
            self.log("trouble", reason=reason)
        self.trouble = reason

    def segment(self, study: Study, networks: Networks) -> None:
        """Segment one study and note its results, or why it has none. No error of one study stops the node."""
        if study.attempts >= ATTEMPTS:
            self._finish(study, {}, [CRASHED])
            return
        begun = time.perf_counter()
        try:
            results, reasons, scans = self._predict(study, networks)
        except ServerError as error:
            # Its text names the server only. A study is not to blame. The model is opened again: the server may
            # have another version of it by now.
            self.trouble, self._networks = SERVER_AWAY, None
            self._next_open = time.monotonic() + FIRST_PAUSE
            self.log(self.trouble, study=study.number, reason=str(error))
            self.spool.postpone(study, FIRST_PAUSE, count=False)
        except Exception as error:  # noqa: BLE001 - whatever a study causes, the others must get their results
            pause = None if study.attempts + 1 >= ATTEMPTS else FIRST_PAUSE * 10**study.attempts
            known = error.reason if isinstance(error, ScanError) else None
            reason = known or type(error).__name__
            self.log("failed", study=study.number, reason=reason, again_in=pause, where=_where(error))
            if pause is None:
                self._finish(study, {}, [known or FAILED])
            else:
                self.spool.postpone(study, pause)
        else:
            self.trouble = ""
            self._finish(study, results, reasons, scans=scans, seconds=round(time.perf_counter() - begun, 2))

    def _finish(self, study: Study, results: dict[str, Path], reasons: list[str], **figures: float) -> None:
        state = self.spool.finish(study, results, ", ".join(reasons))
        event = {ASIDE: "set aside", RECEIVING: "changed meanwhile"}.get(state, "predicted")
        self.log(event, study=study.number, reasons=reasons, **figures)

    def _reopen_model(self) -> Networks | None:
        """Ask the model server again a minute after the last time, also without a study: /health tells the answer.

        Returns:
            None, with `trouble`, while it is away or has a model that cannot be used.
        """
        if time.monotonic() < self._next_open:
            return None
        try:
            self.open_model()
        except Exception as error:  # noqa: BLE001 - the node outlives whatever a model causes, as in `segment`
            if self.trouble != MODEL_UNUSABLE:
                known = isinstance(error, BoneScanError)
                self.log(MODEL_UNUSABLE, reason=str(error) if known else type(error).__name__, where=_where(error))
            self.trouble = MODEL_UNUSABLE
        # From its end: a server that says nothing takes the whole deadline.
        self._next_open = time.monotonic() + FIRST_PAUSE
        return self._networks

    def _predict(self, study: Study, networks: Networks) -> tuple[dict[str, Path], list[str], int]:
        """SOP Instance UID -> file of the results, the reasons of what is not segmented, and the number of scans.

        Raises:
            ScanError: with one of HEALING_REASONS, and no other scan could be read.
            RunError: the results cannot be written, or the model computes impossible values.
        """
        allow = self.settings.allow_missing_view
        found = list_scans([str(study.folder)], allow)
        unread = [ScanError(file.message, file.reason) for file in found.rejected if file.reason in HEALING_REASONS]
        if unread and allow:
            # It may be the other view.
            allow, found = False, list_scans([str(study.folder)])
        reasons = [file.reason for file in found.rejected] + [file.kind for file in found.passed_over]
        settings = JobSettings(
            out=self.spool.results(study.number),
            outputs=("dicom",),
            allow_missing_view=allow,
            overwrite=True,
            keep_identity=True,
        )
        results: dict[str, Path] = {}
        cases = set()
        for files in found.scans:
            try:
                scan = files.read(allow)
                if scan.case in cases:
                    raise ScanError("has the same counts as another of the study", "duplicate")
                source = read_source_study(files.sources)
                prediction, index = networks.segment(scan, networks.lesions.prepare(scan))
                written = write_prediction(settings, scan, prediction, source, skeleton=index)
            except ScanError as error:
                if error.reason in HEALING_REASONS:
                    unread.append(error)
                reasons.append(error.reason)
                continue
            cases.add(scan.case)
            for path in sorted(written.folder.glob("*.dcm")):
                results[pydicom.dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID] = path
        if unread and not cases:
            raise unread[0]
        return results, sorted(set(reasons)), len(cases)


def startup_report(settings: NodeSettings) -> str:
    """What the node accepts, what it does and where it sends, for the person who starts it.

    Raises:
        SettingsError: a model, where it is a folder, cannot be used; names its key in the file.
    """
    lines = [f"doubleunet_bs {__version__} DICOM node. {INTENDED_USE}"]
    receive = settings.receive
    if receive:
        lines.append(f"accepts   C-STORE and C-ECHO as {receive.ae_title}, {receive.host} port {receive.port}")
        lines.append(f"          {', '.join(one.name for one in RECEIVED_CLASSES)}; {_encrypted(receive.tls)}")
        lines += [f"from      {peer.ae_title} at {peer.address}" for peer in receive.peers]
        if receive.host in THIS_MACHINE and not any(peer.address in THIS_MACHINE for peer in receive.peers):
            lines.append(f"WARNING   {receive.host} is for this machine only, and no sender is on it: set receive.host")
    if settings.watch:
        lines.append(f"watches   {settings.watch}")
    where = f", engine {settings.engine}{f' at {settings.server}' * bool(settings.server)}"
    for number, key in enumerate(("model", "skeleton")):
        name = getattr(settings, key)
        if name is None:
            continue
        if settings.server is None:
            try:
                found = describe_models(settings.model, name if number else None)[number]
            except RunError as error:
                raise SettingsError(f"{key}: {error}") from None
            assert found is not None
            name = f"{found.name}, weights {found.weights_sha256[:12]}"
            if found.quality_warning:
                lines.append(f"WARNING   {found.quality_warning}")
        lines.append(f"{('segments  with', 'skeleton  by')[number]} {name}{where}")
    lines.append(f"          a study once no file of it has come for {settings.quiet_seconds:g} s")
    for one in settings.destinations:
        if one.url:
            lines.append(f"sends to  {one.name}: {one.url}; {_encrypted(one.url.startswith('https'))}")
        else:
            lines.append(f"sends to  {one.name}: {one.ae_title}, {one.host} port {one.port}; {_encrypted(one.tls)}")
    if not settings.destinations:
        lines.append("sends     nothing: results stay in the spool")
    if settings.monitor:
        lines.append("monitor   http://{}:{}/health and /metrics".format(*settings.monitor))
    lines.append(
        f"spool     {settings.spool}; files are removed {settings.keep_days:g} days after a study is done; "
        f"refuses scans below {settings.min_free_mb} MB of free space"
    )
    return "\n".join(lines)


def _encrypted(tls: bool) -> str:
    return "TLS" if tls else "not encrypted"


def _where(error: BaseException) -> str:
    """The line of this package that raised an error: its text could hold header values."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if "doubleunet_bs" in one.filename]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
