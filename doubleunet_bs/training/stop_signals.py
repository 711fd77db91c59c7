"""Ask a running loop to stop at a good place instead of anywhere."""

import signal
import threading


class StopSignals:
    """Within the block SIGTERM and SIGINT only set `requested`; a second one acts as usual.

    Outside of the main thread, where Python takes no signal handlers, the block changes nothing.
    """

    def __init__(self):
        self._event = threading.Event()
        self._previous = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self._event.is_set()

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc_info) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _handle(self, number, frame) -> None:
        self._event.set()
        signal.signal(number, self._previous[number])
