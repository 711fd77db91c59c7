"""What a node tells of itself: its log, /health and /metrics on a local port, and the table of its studies."""

import collections
import contextlib
import datetime
import json
import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from doubleunet_bs.errors import RunError, counted
from doubleunet_bs.node.settings import NodeSettings
from doubleunet_bs.node.spool import QUEUE, Spool, unsent_elsewhere

PREFIX = "doubleunet_bs_node"


class EventLog:
    """The log of a node: one line of JSON an event. Studies are numbered: no name, date or UID is in it.

    Attributes:
        counts: (event, status or "") -> how often it came since the node was started.
    """

    def __init__(self):
        self.counts: collections.Counter[tuple[str, str]] = collections.Counter()
        self._lock = threading.Lock()

    def __call__(self, event: str, **fields: Any) -> None:
        now = datetime.datetime.now().astimezone().isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "event": event, **fields}, ensure_ascii=True)
        with self._lock:
            self.counts[event, fields.get("status", "")] += 1
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


def metrics_text(spool: Spool, log: EventLog) -> str:
    """The figures of a node in the text format of Prometheus."""
    figures = spool.figures()
    lines = [f"# TYPE {PREFIX}_free_bytes gauge", f"{PREFIX}_free_bytes {spool.free_bytes()}"]
    lines.append(f"# TYPE {PREFIX}_studies gauge")
    lines += [f'{PREFIX}_studies{{state="{state}"}} {number}' for state, number in sorted(figures["studies"].items())]
    lines.append(f"# TYPE {PREFIX}_results gauge")
    for (destination, state), number in sorted(figures["deliveries"].items()):
        label = destination.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
        lines.append(f'{PREFIX}_results{{destination="{label}",state="{state}"}} {number}')
    lines.append(f"# TYPE {PREFIX}_events_total counter")
    lines += [
        f'{PREFIX}_events_total{{event="{event}",status="{status}"}} {number}'
        for (event, status), number in sorted(log.counts.items())
    ]
    return "\n".join(lines) + "\n"


class Monitor:
    """Answers on `host`:`port` in a thread of its own.

    Args:
        address: host and port.
        spool, log: give the figures.
        problem: says what is wrong with the node; "" when it is well.

    Raises:
        RunError: the port is taken or not allowed.
    """

    def __init__(self, address: tuple[str, int], spool: Spool, log: EventLog, problem: Callable[[], str]):
        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(200, "text/plain; version=0.0.4; charset=utf-8", metrics_text(spool, log))
                elif self.path == "/health":
                    wrong = problem()
                    content = json.dumps({"status": "error", "problem": wrong} if wrong else {"status": "ok"})
                    self._answer(503 if wrong else 200, "application/json", content + "\n")
                else:
                    self._answer(404, "text/plain; charset=utf-8", "not found: use /health or /metrics\n")

            def _answer(self, status: int, kind: str, text: str) -> None:
                data = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        try:
            self._server = ThreadingHTTPServer(address, Handler)
        except OSError as cause:
            raise RunError(f"monitor: cannot listen on {address[0]} port {address[1]} ({cause.strerror})") from None
        threading.Thread(target=self._server.serve_forever, name="monitor", daemon=True).start()

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def read_queue(folder: Path) -> Iterator[sqlite3.Connection]:
    """The database of a spool, to read, while a node may use it.

    Raises:
        RunError: there is none, or it cannot be read.
    """
    path = folder / QUEUE
    if not path.is_file():
        raise RunError(f"{folder}: no node has worked in this folder yet")
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            yield database
    except sqlite3.Error as cause:
        raise RunError(f"{path}: cannot be read ({cause})") from None


def list_studies(folder: Path) -> str:
    """The studies of a spool as a table: number in the log, state, reason, folder of the received files.

    Raises:
        RunError: there is no spool, or it cannot be read.
    """
    with read_queue(folder) as database:
        rows = database.execute("SELECT id, state, reason, key, removed FROM study ORDER BY id").fetchall()
    reasons = [reason for _, _, reason, _, _ in rows if reason]
    wide = max(map(len, reasons), default=6)
    lines = [f"{'study':>6}  {'state':<10}  {'reason':<{wide}}  received files"]
    for number, state, reason, key, removed in rows:
        where = "removed" if removed else str(folder / "received" / key)
        lines.append(f"{number:>6}  {state:<10}  {reason or '-':<{wide}}  {where}")
    if reasons:
        lines += ["", "`doubleunet-bs inspect FOLDER` says in words why a scan cannot be used."]
    if any("unreferable" in reason for reason in reasons):
        lines.append(
            "unreferable: results cannot refer to the scan. "
            "`doubleunet-bs predict FOLDER --model MODEL --out NEW --keep-identity --dry-run` says why."
        )
    return "\n".join(lines)


def unsent_text(settings: NodeSettings) -> str:
    """What was not sent to destinations that are no longer configured, a line each; "" without such or a spool.

    Raises:
        RunError: the spool cannot be read.
    """
    # Not by Path: whoever checks a configuration may not look into the spool.
    if not os.path.isfile(settings.spool / QUEUE):
        return ""
    with read_queue(settings.spool) as database:
        unsent = unsent_elsewhere(database, [one.name for one in settings.destinations])
    return "".join(
        f"unsent    {counted(number, 'result')} for {name}, which is no longer configured: add a [[send]] with this "
        f"name before keep_days ({settings.keep_days:g}) have passed\n"
        for name, number in unsent.items()
    )
