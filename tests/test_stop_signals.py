"""The first Ctrl-C asks for a stop and says so; the second one stops."""

import os
import signal

import pytest

from doubleunet_bs.stop_signals import StopSignals


@pytest.fixture
def interactive():
    """As in a terminal: a program that a script starts in the background ignores Ctrl-C from the start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_second_one_stops_at_once(interactive, capfd):
    with pytest.raises(KeyboardInterrupt), StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        assert "Ctrl-C again stops at once" in capfd.readouterr().err
        os.kill(os.getpid(), signal.SIGINT)
