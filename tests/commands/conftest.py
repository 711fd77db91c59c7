"""What the tests of commands share: a network of one convolution in place of the Double U-Net, and `predict`."""

import pytest
from intensity_run import intensity_model

from doubleunet_bs.__main__ import main


@pytest.fixture
def small_network(monkeypatch):
    """Trainings of this test use a network of one convolution: the rest is the same, in a hundredth of the time."""
    monkeypatch.setattr(
        "doubleunet_bs.training.build_network.double_unet", lambda shape, *args, **kwargs: intensity_model(*shape[:2])
    )


@pytest.fixture
def command(trained_run, tmp_path, capsys):
    """Run predict; returns exit code, standard output and standard error."""

    def run(*arguments, out=tmp_path / "out"):
        code = main(["predict", *map(str, arguments), "--model", str(trained_run / "fold_01"), "--out", str(out)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    run.out = tmp_path / "out"
    return run
