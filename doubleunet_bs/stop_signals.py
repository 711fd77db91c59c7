"""Let SIGTERM and SIGINT stop the work at a good place instead of anywhere."""

import os
import signal
import threading
from typing import Any, ClassVar, Self


class Interrupted(KeyboardInterrupt):
    """The work was asked to stop. What is finished is saved.

    Args:
        how: how to continue, for the message.
    """

    def __init__(self, how: str = "the same command and --resume"):
        super().__init__(f"progress saved: continue with {how}")


class StopSignals:
    """Within the block the first SIGTERM or SIGINT only sets `requested`. A second one acts as usual.

    Blocks may be nested: the inner ones share what the outermost one receives. Look at `requested` or call `check`
    before the end of the outermost block, because a signal that comes late counts too. Outside of the main thread,
    where Python allows no signal handlers, the block changes nothing.
    """

    _open: ClassVar[list["StopSignals"]] = []

    def __init__(self) -> None:
        self._event = threading.Event()
        self._previous: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self._event.is_set()

    def check(self) -> None:
        """Stop here (`Interrupted`) if a signal has come."""
        if self.requested:
            raise Interrupted

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            if self._open:
                self._event = self._open[-1]._event
            else:
                for number in (signal.SIGTERM, signal.SIGINT):
                    self._previous[number] = signal.signal(number, self._handle)
            self._open.append(self)
        return self

    def __exit__(self, *exc_info) -> None:
        if threading.current_thread() is threading.main_thread():
            self._open.remove(self)
            for number, handler in self._previous.items():
                signal.signal(number, handler)
            self._previous.clear()

    def _handle(self, number, frame) -> None:
        self._event.set()
        signal.signal(number, self._previous[number])
        if number == signal.SIGINT:
            # Not by print, which a signal may have interrupted.
            os.write(2, b"\nstopping at the next safe place; Ctrl-C again stops at once\n")
