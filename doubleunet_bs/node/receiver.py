"""Where scans come in: C-STORE from the peers that the configuration lists, and a watch folder."""

import functools
import logging
import os
import tempfile
from collections.abc import Callable
from typing import Any

from pydicom.uid import NuclearMedicineImageStorage, SecondaryCaptureImageStorage
from pynetdicom import AE, _config, evt
from pynetdicom.transport import ThreadedAssociationServer

from doubleunet_bs.dicom_files.decoders import DECODERS, NATIVE_SYNTAXES
from doubleunet_bs.dicom_files.sources import walk_files
from doubleunet_bs.errors import RunError, ScanError
from doubleunet_bs.node.settings import NodeSettings
from doubleunet_bs.node.spool import Spool

STORED, OUT_OF_RESOURCES, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xC000
"""Status of a C-STORE answer (PS3.4, B.2.3)."""
RECEIVED_CLASSES = (NuclearMedicineImageStorage, SecondaryCaptureImageStorage)
"""Bone scans are nuclear medicine images; cameras of the nineties stored them as secondary captures."""
TRANSFER_SYNTAXES = (*sorted(NATIVE_SYNTAXES), *DECODERS)
"""What the reader decodes."""
VERIFICATION = "1.2.840.10008.1.1"
"""SOP class of C-ECHO."""
ASSOCIATIONS = 16
"""At the same time."""
HANDSHAKE_SECONDS = 30.0
"""Within which a peer must have shown its certificate."""
_REJECTED = {"calling AE title": (1, 1, 3), "called AE title": (1, 1, 7)}

Log = Callable[..., None]
"""Writes an event with its fields: `log("received", study=3)`."""


class Receiver:
    """The receiving side of the node; it runs in threads of its own until `stop`.

    Args:
        settings: with `receive`.
        spool: takes what is received.
        log: told of what was received and refused.

    Raises:
        RunError: the port is taken or not allowed.
    """

    def __init__(self, settings: NodeSettings, spool: Spool, log: Log):
        assert settings.receive is not None
        self.settings, self.receive, self.spool, self.log = settings, settings.receive, spool, log
        # Files go to the disk of the spool as they come, and never wholly into memory.
        self._before = _config.STORE_RECV_CHUNKED_DATASET, tempfile.tempdir
        _config.STORE_RECV_CHUNKED_DATASET, tempfile.tempdir = True, str(spool.incoming)
        # pynetdicom logs headers.
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
        entity = AE(self.receive.ae_title)
        entity.maximum_associations = ASSOCIATIONS
        for sop_class in RECEIVED_CLASSES:
            entity.add_supported_context(sop_class, list(TRANSFER_SYNTAXES))
        entity.add_supported_context(VERIFICATION)
        context = None
        if self.receive.tls:
            assert settings.tls is not None
            context = settings.tls.context(server=True)
            # pynetdicom shakes hands in the thread that accepts: a peer that says nothing would keep out all others.
            context.wrap_socket = functools.partial(  # type: ignore[method-assign]
                context.wrap_socket, do_handshake_on_connect=False
            )
        where = (self.receive.host, self.receive.port)
        handlers: list[Any] = [(evt.EVT_REQUESTED, self._requested), (evt.EVT_C_STORE, self._store)]
        if context:
            handlers.append((evt.EVT_CONN_OPEN, self._shake_hands))
        try:
            server = entity.start_server(where, block=False, ssl_context=context, evt_handlers=handlers)
        except OSError as cause:
            raise RunError(f"receive: cannot listen on {where[0]} port {where[1]} ({cause.strerror})") from None
        assert server is not None
        self._server: ThreadedAssociationServer = server
        self._entity = entity

    def stop(self) -> None:
        """Accept nothing more; what is being received is aborted and was not acknowledged."""
        self._entity.shutdown()
        _config.STORE_RECV_CHUNKED_DATASET, tempfile.tempdir = self._before

    def _shake_hands(self, event: evt.Event) -> None:
        """Begin TLS in the thread of this connection; close one whose peer has no certificate of the authority."""
        wrapped = event.assoc.dul.socket
        assert wrapped is not None
        connection: Any = wrapped.socket
        try:
            connection.settimeout(HANDSHAKE_SECONDS)
            connection.do_handshake()
            connection.settimeout(None)
        except OSError as error:
            wrapped.close()
            reason = getattr(error, "reason", None) or type(error).__name__
            self._rejected(f"TLS: {reason}", event.assoc.requestor.address)

    def _requested(self, event: evt.Event) -> None:
        """Reject who is not listed, by AE title and address together, and who asks for another AE title."""
        requestor = event.assoc.requestor
        primitive = requestor.primitive
        assert primitive is not None
        caller = (primitive.calling_ae_title.strip(), requestor.address.removeprefix("::ffff:"))
        if primitive.called_ae_title.strip() != self.receive.ae_title:
            reason = "called AE title"
        elif caller not in {(peer.ae_title, peer.address) for peer in self.receive.peers}:
            reason = "calling AE title"
        else:
            return
        # First: after an error in a handler pynetdicom goes on and accepts.
        event.assoc.acse.send_reject(*_REJECTED[reason])
        event.assoc.kill()
        self._rejected(reason, caller[1])

    def _rejected(self, reason: str, address: str) -> None:
        self.log("association rejected", reason=reason, address=address)

    def _store(self, event: evt.Event) -> int:
        spool, size = self.spool, event.dataset_path.stat().st_size
        if spool.is_full(self.settings.min_free_mb):
            status, reason = OUT_OF_RESOURCES, "disk-full"
        else:
            try:
                number, new = spool.receive(event.dataset_path, self.settings.quiet_seconds)
            except ScanError as error:
                status, reason = NOT_UNDERSTOOD, error.reason
            except OSError as error:
                status, reason = OUT_OF_RESOURCES, error.strerror or "not written"
            else:
                self.log("received" if new else "received again", study=number)
                return STORED
        self.log("refused", status=f"{status:04X}", reason=reason, bytes=size)
        return status


class WatchFolder:
    """Takes copies of the files that appear in a folder and its subfolders; the folder itself is left as it is."""

    def __init__(self, settings: NodeSettings, spool: Spool, log: Log):
        assert settings.watch is not None
        self.settings, self.folder, self.spool, self.log = settings, settings.watch, spool, log
        self._growing: dict[str, tuple[int, int]] = {}

    def look(self) -> None:
        """Take every new file that has not changed since the look before.

        Raises:
            OSError: the folder is gone, for instance a share that is not mounted.
        """
        growing = {}
        os.listdir(self.folder)
        for path in walk_files(self.folder):
            try:
                status = os.stat(path)
            except OSError:
                continue
            state = (status.st_size, status.st_mtime_ns)
            if os.path.basename(path).startswith(".") or self.spool.is_watched(path, *state):
                continue
            if self._growing.get(path) != state:
                growing[path] = state
            elif self.spool.is_full(self.settings.min_free_mb):
                return
            else:
                self._take(path, state)
        self._growing = growing

    def _take(self, path: str, state: tuple[int, int]) -> None:
        copy = None
        try:
            copy = self.spool.copy_in(path)
            number, new = self.spool.receive(copy, self.settings.quiet_seconds)
        except ScanError as error:
            self.log("passed over", reason=error.reason)
        except OSError as error:
            # Tried again at the next look.
            self.log("not read", reason=error.strerror or "unreadable")
            return
        else:
            self.log("received" if new else "received again", study=number)
        finally:
            if copy is not None:
                copy.unlink(missing_ok=True)
        self.spool.mark_watched(path, *state)
