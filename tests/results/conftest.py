"""What the tests of results share."""

import shutil

import pytest
from handmade_prediction import description, make_prediction

from doubleunet_bs.__main__ import main
from doubleunet_bs.results.input_scans import ScanReader
from doubleunet_bs.results.result_files import OUTPUTS, JobSettings
from doubleunet_bs.results.result_folder import write_prediction


@pytest.fixture
def command(trained_run, tmp_path, capsys):
    """Run predict; returns exit code, standard output and standard error."""

    def run(*arguments, out=tmp_path / "out", model=trained_run / "fold_01"):
        try:
            code = main(["predict", *map(str, arguments), "--model", str(model), "--out", str(out)])
        except SystemExit as stopped:
            code = stopped.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    run.out = tmp_path / "out"
    return run


@pytest.fixture(scope="session")
def whole_result(scan, tmp_path_factory):
    """A result of every output. Read only: `reader` has a copy."""
    return write_prediction(JobSettings(tmp_path_factory.mktemp("whole"), OUTPUTS), scan, make_prediction(scan))


@pytest.fixture
def reader(whole_result, tmp_path):
    """A result of every output, and a reader that knows its model."""
    made = ScanReader(JobSettings(tmp_path / "out", OUTPUTS, skip_existing=True), description())
    made.folder = shutil.copytree(whole_result.folder, tmp_path / "out" / whole_result.folder.name)
    return made
