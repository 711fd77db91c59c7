"""The configuration file of a node (TOML): read once, checked wholly, before anything listens or is sent."""

import dataclasses
import difflib
import functools
import ipaddress
import math
import os
import ssl
import tomllib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from doubleunet_bs.bsi import WEIGHT_TABLES
from doubleunet_bs.errors import SettingsError, os_reason
from doubleunet_bs.files import nearest_existing
from doubleunet_bs.inference.engines import check_choice


@dataclasses.dataclass(frozen=True)
class Peer:
    """A program that may send scans. Attributes: ae_title: as it calls itself. address: IP address it comes from."""

    ae_title: str
    address: str


@dataclasses.dataclass(frozen=True)
class Tls:
    """Certificate and key of this node, and the authority that signed those of its peers. PEM files."""

    certificate: Path
    key: Path
    authority: Path

    def context(self, server: bool) -> ssl.SSLContext:
        """Both sides must show a certificate of the authority.

        Raises:
            SettingsError: a file is missing or is not what it should be.
        """
        purpose = ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH
        try:
            context = ssl.create_default_context(purpose, cafile=self.authority)
            context.load_cert_chain(self.certificate, self.key)
        except OSError as cause:
            raise SettingsError(f"[tls]: {cause.strerror or cause}: name PEM files") from None
        context.verify_mode = ssl.CERT_REQUIRED
        return context


@dataclasses.dataclass(frozen=True)
class Receive:
    """Attributes: ae_title, port, host: of this node. peers: who may send. tls: whether connections must be TLS."""

    ae_title: str
    port: int
    peers: tuple[Peer, ...]
    host: str = "127.0.0.1"
    tls: bool = False


@dataclasses.dataclass(frozen=True)
class Destination:
    """Where results go: an AE title at host and port (C-STORE), or a URL (STOW-RS).

    Attributes:
        name: in the log and the metrics.
        ae_title, host, port, tls: of the receiving DICOM node.
        url: of the DICOMweb service; then the former are unused.
        token: environment variable with a bearer token for the URL; None for none.
    """

    name: str
    ae_title: str = ""
    host: str = ""
    port: int = 0
    tls: bool = False
    url: str | None = None
    token: str | None = None


@dataclasses.dataclass(frozen=True)
class NodeSettings:
    """Everything a node is told. `assets/docs/hospital.md` lists the keys of the file.

    Attributes:
        spool: folder of the node alone: received files, results, queue.
        model, engine, server, precision, deadline: see `inference.predictor.Predictor`.
        skeleton: model of the skeleton for the Bone Scan Index, named like `model`; None for none.
        weights: name of its weight table; None chooses by the sex in the header.
        allow_missing_view: segment studies with one view.
        quiet_seconds: seconds without a new file before a study is segmented.
        keep_days: files of a study that is done are removed after so many days.
        min_free_mb: with less free space in the spool, scans are refused.
        receive: where scans come in; None without.
        watch: folder whose files are taken, too; None without.
        destinations: where results go; empty: they stay in the spool.
        monitor: host and port of /health and /metrics; None for none.
        tls: None where no connection uses it.
    """

    spool: Path
    model: str
    engine: str = "auto"
    server: str | None = None
    precision: str = "auto"
    deadline: float | None = None
    skeleton: str | None = None
    weights: str | None = None
    allow_missing_view: bool = False
    quiet_seconds: float = 120.0
    keep_days: float = 7.0
    min_free_mb: int = 1024
    receive: Receive | None = None
    watch: Path | None = None
    destinations: tuple[Destination, ...] = ()
    monitor: tuple[str, int] | None = None
    tls: Tls | None = None


_KEYS = {field.name for field in dataclasses.fields(NodeSettings)} - {"destinations"} | {"send"}
_PEM_FILES = ("certificate", "key", "authority")


def read_settings(path: str | os.PathLike) -> NodeSettings:
    """Read and check the configuration file.

    Raises:
        SettingsError: it cannot be read, has unknown or impossible values, or names neither [receive] nor [watch]. Each
            fault is a line.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as cause:
        raise SettingsError(f"{path}: not a readable TOML file ({os_reason(cause)})") from None
    try:
        return _settings(content, path.parent)
    except SettingsError as error:
        lines = (f"{path}: {line}" for line in str(error).splitlines())
        raise SettingsError("\n".join(lines)) from None


def _settings(content: dict[str, Any], folder: Path) -> NodeSettings:
    receive, watch, monitor, tls, sends, plain = _all(
        lambda: [_receive(table) for table in _tables(content, "receive")],
        lambda: [_values(table, "watch.", ("folder",), ("folder",)) for table in _tables(content, "watch")],
        lambda: [_values(table, "monitor.", ("host", "port"), ("port",)) for table in _tables(content, "monitor")],
        lambda: [_values(table, "tls.", _PEM_FILES, _PEM_FILES) for table in _tables(content, "tls")],
        lambda: _all(*(functools.partial(_destination, one) for one in _tables(content, "send", several=True))),
        # Last: the tables have been taken out.
        lambda: _values(content, "", _KEYS, ("spool", "model")),
    )
    plain["spool"] = folder / plain["spool"]
    if "server" in plain:
        plain.setdefault("engine", "serving")
    for key in ("model", "skeleton"):
        # A name on a model server is no path.
        if key in plain and (folder / plain[key]).is_dir():
            plain[key] = str(folder / plain[key])
    settings = NodeSettings(
        **plain,
        receive=receive[0] if receive else None,
        watch=folder / watch[0]["folder"] if watch else None,
        monitor=(monitor[0].get("host", "127.0.0.1"), monitor[0]["port"]) if monitor else None,
        tls=Tls(*(folder / tls[0][key] for key in _PEM_FILES)) if tls else None,
        destinations=tuple(sends),
    )
    _raise_all(list(_contradictions(settings)))
    return settings


def _all(*readers: Callable[[], Any]) -> list[Any]:
    """What all readers return. `SettingsError`: the faults that they raise, a line each."""
    found, faults = [], []
    for read in readers:
        try:
            found.append(read())
        except SettingsError as error:
            faults.append(str(error))
    _raise_all(faults)
    return found


def _raise_all(faults: list[str]) -> None:
    if faults:
        raise SettingsError("\n".join(faults))


def _contradictions(settings: NodeSettings) -> Iterator[str]:
    """What does not go together."""
    try:
        check_choice(settings.engine, settings.precision, settings.server, settings.deadline)
    except SettingsError as error:
        yield str(error)
    if settings.weights and not settings.skeleton:
        yield "weights needs skeleton: there is no Bone Scan Index without it"
    if settings.receive is None and settings.watch is None:
        yield "nothing would come in: add [receive] or [watch]"
    if not (place := nearest_existing(settings.spool)).is_dir():
        yield f"spool: {place} is a file: name a folder"
    if settings.watch is not None:
        inner, outer = settings.watch.resolve(), settings.spool.resolve()
        if inner == outer or outer in inner.parents or inner in outer.parents:
            yield "watch.folder and spool lie in one another: name another folder"
        elif not settings.watch.is_dir():
            yield f"watch.folder: no folder {settings.watch}"
    if settings.tls is not None:
        try:
            for server_side in (True, False):
                settings.tls.context(server_side)
        except SettingsError as error:
            yield str(error)
    elif (settings.receive and settings.receive.tls) or any(one.tls for one in settings.destinations):
        yield "tls = true needs [tls] with certificate, key and authority"
    if len({one.name for one in settings.destinations}) != len(settings.destinations):
        yield "[[send]]: two destinations have the same name"


def _receive(table: dict[str, Any]) -> Receive:
    peers, values = _all(
        lambda: _peers(table),
        lambda: _values(table, "receive.", ("ae_title", "host", "port", "tls", "from"), ("ae_title", "port")),
    )
    return Receive(peers=peers, **values)


def _peers(receive: dict[str, Any]) -> tuple[Peer, ...]:
    tables = _tables(receive, "from", True, "receive.")
    # A misspelt name is a fault of its own.
    if not tables and not difflib.get_close_matches("from", receive):
        raise SettingsError("[[receive.from]] is missing: list who may send, with ae_title and address")
    keys = ("ae_title", "address")
    listed = _all(*(functools.partial(_values, table, "receive.from.", keys, keys) for table in tables))
    return tuple(Peer(one["ae_title"], _plain_address(one["address"])) for one in listed)


def _destination(table: dict[str, Any]) -> Destination:
    if "url" not in table:
        keys = ("ae_title", "host", "port")
        values = _values(table, "send.", ("name", "tls", *keys), keys)
        return Destination(**{"name": values["ae_title"]} | values)
    values = _values(table, "send.", ("name", "url", "token"), ("url",))
    url, token = values["url"].rstrip("/"), values.get("token")
    host = urlsplit(url).hostname
    if token and not os.environ.get(token):
        raise SettingsError(f"send.token: the environment variable {token} is not set")
    if token and url.startswith("http:") and host not in ("127.0.0.1", "localhost"):
        raise SettingsError("send.token would travel unencrypted: use an https address")
    return Destination(**{"name": host} | values | {"url": url})


def _tables(content: dict[str, Any], key: str, several: bool = False, where: str = "") -> list[dict[str, Any]]:
    """Take the tables of a name out of the content: [[key]] where there may be several, else [key]."""
    value = content.pop(key, [])
    if not several and isinstance(value, dict):
        value = [value]
    elif not isinstance(value, list) or not all(isinstance(one, dict) for one in value) or (value and not several):
        raise SettingsError(f"{where}{key}: write it as {f'[[{where}{key}]]' if several else f'[{where}{key}]'}")
    return value


def _values(
    table: dict[str, Any], where: str, known: Collection[str], required: Collection[str] = ()
) -> dict[str, Any]:
    """The values of a table, each as its key asks for. Nothing else may be in it."""
    faults, meant = [], set()
    for key, value in table.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            meant.update(near)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
            faults.append(f"{where}{key} is unknown: {hint}")
            continue
        is_possible, what = _FORMS.get(key, (_is_text, "a text"))
        if not is_possible(value):
            # An address may hold a password.
            shown = "" if key == "url" else f" = {value!r}"
            hint = ", without quotation marks" if _is_quoted(value, is_possible) else ""
            faults.append(f"{where}{key}{shown} must be {what}{hint}")
    _raise_all(faults + [f"{where}{key} is missing" for key in required if key not in table and key not in meant])
    return dict(table)


def _is_quoted(value: Any, is_possible: Callable[[Any], bool]) -> bool:
    """Whether a text would be possible if the file had it without its quotation marks."""
    try:
        return isinstance(value, str) and is_possible(tomllib.loads(f"value = {value}")["value"])
    except tomllib.TOMLDecodeError:
        return False


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_title(value: Any) -> bool:
    # DICOM pads titles with spaces, so those at the ends mean nothing and the receiver compares without them.
    is_plain = _is_text(value) and value == value.strip() and value.isascii() and value.isprintable()
    return is_plain and len(value) <= 16 and "\\" not in value


def _is_address(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(_plain_address(value))
    except ValueError:
        return False


def _plain_address(text: str) -> str:
    """An IP address as the operating system writes it, IPv4 within IPv6 as IPv4; the receiver compares texts."""
    address = ipaddress.ip_address(text)
    return str(getattr(address, "ipv4_mapped", None) or address)


def _is_url(value: Any) -> bool:
    parts = urlsplit(value if isinstance(value, str) else "")
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.username and not parts.query


_FLAG = (lambda value: isinstance(value, bool), "true or false")
_POSITIVE = (lambda value: type(value) in (int, float) and 0 < value < math.inf, "a number above 0")
_FORMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("tls", "allow_missing_view"), _FLAG),
    **dict.fromkeys(("deadline", "quiet_seconds", "keep_days"), _POSITIVE),
    "min_free_mb": (lambda value: type(value) is int and value >= 0, "a whole number, 0 or more"),
    "port": (lambda value: type(value) is int and 0 < value < 65536, "a port, 1 to 65535"),
    "weights": (lambda value: value in tuple(WEIGHT_TABLES), f"one of {', '.join(WEIGHT_TABLES)}"),
    "ae_title": (_is_title, "an AE title: at most 16 ASCII characters, no backslash, no space at an end"),
    "address": (_is_address, "an IP address"),
    "url": (_is_url, "an http or https address without a password"),
}
"""Key of the file, wherever it stands -> which values it takes, in words too. All others are texts."""
