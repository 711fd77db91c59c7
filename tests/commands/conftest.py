"""What the tests of commands share: `predict`."""

import pytest

from doubleunet_bs.__main__ import main


@pytest.fixture
def command(trained_run, tmp_path, capsys):
    """Run predict; returns exit code, standard output and standard error."""

    def run(*arguments, out=tmp_path / "out"):
        code = main(["predict", *map(str, arguments), "--model", str(trained_run / "fold_01"), "--out", str(out)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    run.out = tmp_path / "out"
    return run
