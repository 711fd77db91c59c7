"""The first Ctrl-C asks for a stop and says so; the second one stops."""

import os
import signal

import pytest

from doubleunet_bs.stop_signals import StopSignals


def test_the_second_one_stops_at_once(capfd):
    with pytest.raises(KeyboardInterrupt), StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        assert "Ctrl-C again stops at once" in capfd.readouterr().err
        os.kill(os.getpid(), signal.SIGINT)
