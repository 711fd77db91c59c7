"""Ask what runs to stop at a good place instead of anywhere."""

import signal
import threading


class Interrupted(KeyboardInterrupt):
    """The work was asked to stop; what is finished and what is saved can be resumed."""

    def __str__(self) -> str:
        return "what is done is saved; go on with --resume"


class StopSignals:
    """Within the block SIGTERM and SIGINT only set `requested`; a second one acts as usual.

    Blocks of the same object may lie within each other; the outermost one counts. Whoever opens it looks at
    `requested`,
    or calls `check`, before he leaves it: a signal that came late is a signal, too.

    Outside of the main thread, where Python takes no signal handlers, the block changes nothing.
    """

    def __init__(self):
        self._event = threading.Event()
        self._previous = {}
        self._depth = 0

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self._event.is_set()

    def check(self) -> None:
        """Stop here when a signal has come.

        Raises:
            Interrupted: one has.
        """
        if self.requested:
            raise Interrupted

    def __enter__(self) -> "StopSignals":
        self._depth += 1
        if self._depth == 1 and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc_info) -> None:
        self._depth -= 1
        if self._depth == 0:
            for number, handler in self._previous.items():
                signal.signal(number, handler)
            self._previous.clear()

    def _handle(self, number, frame) -> None:
        self._event.set()
        signal.signal(number, self._previous[number])
