"""The configuration file of a node (TOML): read once, checked wholly, before anything listens or is sent."""

import dataclasses
import difflib
import ipaddress
import os
import ssl
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from doubleunet_bs.bsi import WEIGHT_TABLES
from doubleunet_bs.errors import SettingsError
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
    """Attributes: ae_title, host, port: of this node. peers: who may send. tls: whether connections must be TLS."""

    ae_title: str
    host: str
    port: int
    peers: tuple[Peer, ...]
    tls: bool


@dataclasses.dataclass(frozen=True)
class Destination:
    """Where results go: an AE title at host and port (C-STORE), or a URL (STOW-RS).

    Attributes:
        name: in the log and the metrics.
        ae_title, host, port, tls: of the receiving DICOM node.
        url: of the DICOMweb service; then the former are unused.
        token_variable: environment variable with a bearer token for the URL; None for none.
    """

    name: str
    ae_title: str = ""
    host: str = ""
    port: int = 0
    tls: bool = False
    url: str | None = None
    token_variable: str | None = None


@dataclasses.dataclass(frozen=True)
class NodeSettings:
    """Everything a node is told. `assets/docs/hospital.md` lists the keys of the file.

    Attributes:
        spool: folder of the node alone: received files, results, queue.
        model, engine, server, precision, deadline: see `inference.predictor.Predictor`.
        skeleton: model of the skeleton for the Bone Scan Index, named like `model`; None for none.
        weights: name of its weight table; None chooses by the sex in the header.
        allow_missing_view: segment studies with one view.
        quiet_seconds: a study is segmented when nothing of it has come for so long.
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
    receive: Receive | None
    watch: Path | None
    destinations: tuple[Destination, ...]
    monitor: tuple[str, int] | None
    tls: Tls | None
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


def read_settings(path: str | os.PathLike) -> NodeSettings:
    """Read and check the configuration file.

    Raises:
        SettingsError: it cannot be read, has an unknown or impossible value, or names neither [receive] nor [watch].
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as cause:
        raise SettingsError(f"{path}: not a readable TOML file ({cause})") from None
    try:
        return _settings(_Table(content, ""), path.parent)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None


class _Table:
    """A table of the file. Each key is taken once; `end` refuses what nobody has taken."""

    def __init__(self, content: dict[str, Any], name: str):
        self.content, self.name, self.known = dict(content), name, set[str]()

    def take(self, key: str, kind: Callable[[Any], Any], *default: Any) -> Any:
        self.known.add(key)
        label = f"{self.name}{key}"
        if key not in self.content:
            if default:
                return default[0]
            raise SettingsError(f"{label} is missing")
        value = self.content.pop(key)
        try:
            return kind(value)
        except SettingsError as error:
            # An address may hold a password.
            shown = "" if key == "url" else f" = {value!r}"
            raise SettingsError(f"{label}{shown} {error}") from None

    def tables(self, key: str) -> list["_Table"]:
        self.known.add(key)
        value = self.content.pop(key, [])
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise SettingsError(f"{self.name}{key}: write it as [[{self.name}{key}]]")
        return [_Table(one, f"{self.name}{key}.") for one in value]

    def table(self, key: str) -> "_Table | None":
        self.known.add(key)
        value = self.content.pop(key, None)
        if value is not None and not isinstance(value, dict):
            raise SettingsError(f"{self.name}{key}: write it as [{self.name}{key}]")
        return None if value is None else _Table(value, f"{self.name}{key}.")

    def end(self) -> None:
        for key in self.content:
            near = difflib.get_close_matches(key, self.known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(self.known))}"
            raise SettingsError(f"{self.name}{key} is unknown: {hint}")


def _settings(top: _Table, folder: Path) -> NodeSettings:
    def local(value: Any) -> Path:
        return folder / _text(value)

    # A name on a model server is no path.
    server = top.take("server", _text, None)
    model, skeleton = top.take("model", _text), top.take("skeleton", _text, None)
    plain = {
        "engine": top.take("engine", _text, "serving" if server else "auto"),
        "server": server,
        "precision": top.take("precision", _text, "auto"),
        "deadline": top.take("deadline", _positive, None),
        "weights": top.take("weights", _weight_table, None),
        "allow_missing_view": top.take("allow_missing_view", _flag, False),
        "quiet_seconds": top.take("quiet_seconds", _positive, 120.0),
        "keep_days": top.take("keep_days", _positive, 7.0),
        "min_free_mb": top.take("min_free_mb", _count, 1024),
    }
    spool = top.take("spool", local)
    tables = {name: top.table(name) for name in ("receive", "watch", "monitor", "tls")}
    sends = top.tables("send")
    top.end()
    check_choice(plain["engine"], plain["precision"], server, plain["deadline"])
    if plain["weights"] and not skeleton:
        raise SettingsError("weights needs skeleton: there is no Bone Scan Index without it")

    receive = watch = monitor = tls = None
    if (table := tables["receive"]) is not None:
        peers = []
        for one in table.tables("from"):
            peers.append(Peer(one.take("ae_title", _ae_title), one.take("address", _address)))
            one.end()
        if not peers:
            raise SettingsError("[[receive.from]] is missing: list who may send, with ae_title and address")
        receive = Receive(
            ae_title=table.take("ae_title", _ae_title),
            host=table.take("host", _text, "127.0.0.1"),
            port=table.take("port", _port),
            peers=tuple(peers),
            tls=table.take("tls", _flag, False),
        )
        table.end()
    if (table := tables["watch"]) is not None:
        watch = table.take("folder", local)
        table.end()
        inner, outer = watch.resolve(), spool.resolve()
        if inner == outer or outer in inner.parents or inner in outer.parents:
            raise SettingsError("watch.folder and spool lie in one another: name another folder")
        if not watch.is_dir():
            raise SettingsError(f"watch.folder: no folder {watch}")
    if receive is None and watch is None:
        raise SettingsError("nothing would come in: add [receive] or [watch]")
    if (table := tables["monitor"]) is not None:
        monitor = (table.take("host", _text, "127.0.0.1"), table.take("port", _port))
        table.end()
    if (table := tables["tls"]) is not None:
        tls = Tls(*(table.take(key, local) for key in ("certificate", "key", "authority")))
        table.end()
        for server_side in (True, False):
            tls.context(server_side)
    destinations = tuple(_destination(one) for one in sends)
    names = [one.name for one in destinations]
    if len(set(names)) != len(names):
        raise SettingsError("[[send]]: two destinations have the same name")
    if tls is None and ((receive and receive.tls) or any(one.tls for one in destinations)):
        raise SettingsError("tls = true needs [tls] with certificate, key and authority")

    def there(name: str) -> str:
        return str(folder / name) if (folder / name).is_dir() else name

    return NodeSettings(
        spool=spool,
        model=there(model),
        skeleton=there(skeleton) if skeleton else None,
        receive=receive,
        watch=watch,
        destinations=destinations,
        monitor=monitor,
        tls=tls,
        **plain,
    )


def _destination(table: _Table) -> Destination:
    url = table.take("url", _url, None)
    if url is not None:
        found = Destination(
            table.take("name", _text, urlsplit(url).hostname), url=url, token_variable=table.take("token", _text, None)
        )
        if found.token_variable and not os.environ.get(found.token_variable):
            raise SettingsError(f"send.token: the environment variable {found.token_variable} is not set")
        if (
            found.token_variable
            and url.startswith("http:")
            and urlsplit(url).hostname not in ("127.0.0.1", "localhost")
        ):
            raise SettingsError("send.token would travel unencrypted: use an https address")
    else:
        ae_title = table.take("ae_title", _ae_title)
        found = Destination(
            table.take("name", _text, ae_title),
            ae_title,
            table.take("host", _text),
            table.take("port", _port),
            table.take("tls", _flag, False),
        )
    table.end()
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise SettingsError("must be a text")
    return value


def _weight_table(value: Any) -> str:
    if value not in WEIGHT_TABLES:
        raise SettingsError(f"must be one of {', '.join(WEIGHT_TABLES)}")
    return value


def _no_text(value: Any) -> None:
    if isinstance(value, str):
        raise SettingsError("is a string: remove the quotes")


def _flag(value: Any) -> bool:
    _no_text(value)
    if not isinstance(value, bool):
        raise SettingsError("must be true or false")
    return value


def _positive(value: Any) -> float:
    _no_text(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise SettingsError("must be a number above 0")
    return float(value)


def _count(value: Any) -> int:
    _no_text(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise SettingsError("must be a whole number, 0 or more")
    return value


def _port(value: Any) -> int:
    _no_text(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 65536:
        raise SettingsError("must be a port, 1 to 65535")
    return value


def _ae_title(value: Any) -> str:
    title = _text(value).strip()
    if len(title) > 16 or not title.isascii() or not title.isprintable() or "\\" in title:
        raise SettingsError("must be an AE title: at most 16 ASCII characters, no backslash")
    return title


def _address(value: Any) -> str:
    try:
        return str(ipaddress.ip_address(_text(value)))
    except ValueError:
        raise SettingsError("must be an IP address") from None


def _url(value: Any) -> str:
    parts = urlsplit(_text(value))
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise SettingsError("must be an http or https address without a password")
    return value.rstrip("/")
