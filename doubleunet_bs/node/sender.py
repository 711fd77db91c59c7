"""Where results go: C-STORE to a DICOM node or STOW-RS to a DICOMweb service, again and again until they are stored."""

import functools
import os
import threading
from collections.abc import Iterable
from xml.etree import ElementTree

import pydicom
import requests
from dicomweb_client import DICOMwebClient
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.presentation import build_context

from doubleunet_bs.node.receiver import Log
from doubleunet_bs.node.settings import Destination, NodeSettings
from doubleunet_bs.node.spool import REFUSED, SENT, Delivery, Spool

FIRST_PAUSE, LONGEST_PAUSE = 10.0, 900.0
"""Seconds before a destination is tried again, doubled each time."""
_PLAIN: list[str | UID] = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
_TIMEOUT = 60
_FAILURE_REASON = (
    ".//{*}DicomAttribute[@keyword='FailedSOPSequence']//{*}DicomAttribute[@keyword='FailureReason']/{*}Value"
)


class UnavailableError(Exception):
    """The destination cannot take anything at present. The text names the reason, nothing of a patient."""


class Sender(threading.Thread):
    """Sends the results of all studies to one destination, until `stop` is set."""

    def __init__(self, destination: Destination, settings: NodeSettings, spool: Spool, log: Log, stop: threading.Event):
        super().__init__(name=f"send {destination.name}", daemon=True)
        self.destination, self.settings, self.spool, self.log, self.stop = destination, settings, spool, log, stop
        self.failures = 0

    def run(self) -> None:
        pause = 1.0
        while not self.stop.wait(pause):
            try:
                waiting = self.spool.deliveries(self.destination.name)
                if not waiting:
                    pause = 1.0
                    continue
                (self._send_web if self.destination.url else self._send_dicom)(waiting)
            except Exception as error:  # noqa: BLE001 - whatever happens, the results of other studies must go on
                reason = str(error) if isinstance(error, UnavailableError) else type(error).__name__
                pause = min(FIRST_PAUSE * 2**self.failures, LONGEST_PAUSE)
                self.failures += 1
                self.log("destination unavailable", destination=self.destination.name, reason=reason, pause=pause)
            else:
                self.failures, pause = 0, 0.1

    def _note(self, delivery: Delivery, status: int | None) -> str:
        """Note the answer of the destination: a status of PS3.4 B.2.3, None for "stored".

        Returns:
            Why the file must be sent again later; "" when it need not.
        """
        if status in (None, 0) or status >> 12 == 0xB:
            self.spool.delivered(delivery, SENT)
            self.log("sent", study=delivery.study, destination=self.destination.name)
        elif status >> 8 == 0xA7:
            return f"status {status:04X}"
        else:
            self.spool.delivered(delivery, REFUSED)
            self.log("not taken", study=delivery.study, destination=self.destination.name, status=f"{status:04X}")
        return ""

    def _send_dicom(self, waiting: list[Delivery]) -> None:
        destination, receive = self.destination, self.settings.receive
        # A result that is just being replaced comes with the next turn.
        datasets = [(one, pydicom.dcmread(one.path)) for one in waiting if one.path.is_file()]
        if not datasets:
            raise UnavailableError("results not there")
        entity = AE(receive.ae_title if receive else "DOUBLEUNET_BS")
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _TIMEOUT
        entity.connection_timeout = _TIMEOUT
        entity.requested_contexts = _contexts(dataset for _, dataset in datasets)
        tls = None
        if destination.tls:
            assert self.settings.tls is not None
            tls = (self.settings.tls.context(server=False), destination.host)
        association = entity.associate(
            destination.host,
            destination.port,
            ae_title=destination.ae_title,
            tls_args=tls,  # type: ignore[arg-type]
        )
        if not association.is_established:
            reason = "association rejected" if association.is_rejected else f"no {'TLS ' if tls else ''}connection"
            raise UnavailableError("none of our SOP classes accepted" if association.rejected_contexts else reason)
        try:
            accepted = {(one.abstract_syntax, one.transfer_syntax[0]) for one in association.accepted_contexts}
            later = ""
            for delivery, dataset in datasets:
                if self.stop.is_set():
                    return
                if not association.is_established:
                    raise UnavailableError("connection lost")
                syntax = dataset.file_meta.TransferSyntaxUID
                if (dataset.SOPClassUID, syntax) not in accepted and syntax.is_compressed:
                    dataset.decompress(generate_instance_uid=False)
                if not any(sop_class == dataset.SOPClassUID for sop_class, _ in accepted):
                    # SOP class not supported.
                    self._note(delivery, 0x0122)
                    continue
                status = association.send_c_store(dataset)
                if "Status" not in status:
                    raise UnavailableError("connection lost")
                # One file that is not taken now does not hold up the others.
                later = self._note(delivery, int(status.Status)) or later
            if later:
                raise UnavailableError(later)
        finally:
            if association.is_established:
                association.release()

    def _send_web(self, waiting: list[Delivery]) -> None:
        destination = self.destination
        assert destination.url is not None
        session = requests.Session()
        session.request = functools.partial(session.request, timeout=_TIMEOUT)  # type: ignore[method-assign]
        headers = {}
        if destination.token:
            headers["Authorization"] = f"Bearer {os.environ[destination.token]}"
        client = DICOMwebClient(destination.url, session=session, headers=headers)
        client.set_http_retry_params(retry=False)
        later = ""
        for delivery in waiting:
            if self.stop.is_set():
                return
            if not delivery.path.is_file():
                later = "results not there"
                continue
            try:
                answer = client.store_instances([pydicom.dcmread(delivery.path)])
            except requests.HTTPError as error:
                # These lie in the file. Others, such as a missing right, can be cured on the other side.
                code = error.response.status_code if error.response is not None else 500
                if code not in (400, 409, 413, 415):
                    raise UnavailableError(f"HTTP {code}") from None
                later = self._note(delivery, _why_not_stored(error.response)) or later
                continue
            except requests.RequestException as error:
                raise UnavailableError(type(error).__name__) from None
            failed = answer.get("FailedSOPSequence") or []
            status = int(failed[0].get("FailureReason") or 0xC000) if failed else None
            later = self._note(delivery, status) or later
        if later:
            raise UnavailableError(later)


def _why_not_stored(response: requests.Response | None) -> int:
    """A7xx, out of resources, where the body of a STOW-RS answer says so; else C000."""
    assert response is not None
    try:
        if "xml" in response.headers.get("Content-Type", ""):
            reason = ElementTree.fromstring(response.content).findtext(_FAILURE_REASON)
        else:
            reason = response.json()["00081198"]["Value"][0]["00081197"]["Value"][0]
        status = int(reason)  # type: ignore[arg-type]
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError, ElementTree.ParseError):
        return 0xC000
    return status if status >> 8 == 0xA7 else 0xC000


def _contexts(datasets: Iterable[Dataset]) -> list:
    """A presentation context for each class and transfer syntax, and one uncompressed beside it."""
    wanted: dict[tuple[str, str], list[str | UID]] = {}
    for dataset in datasets:
        syntax = dataset.file_meta.TransferSyntaxUID
        wanted[dataset.SOPClassUID, "plain"] = _PLAIN
        if syntax.is_compressed:
            wanted[dataset.SOPClassUID, syntax] = [syntax]
    return [build_context(sop_class, syntaxes) for (sop_class, _), syntaxes in wanted.items()]
