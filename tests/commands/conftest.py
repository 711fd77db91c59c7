"""What the tests of commands share: trainings without an export, and `predict`."""

import pytest

from doubleunet_bs.__main__ import main


@pytest.fixture
def no_export(monkeypatch, tensorflow):
    """Trainings run eagerly and leave an empty file for a SavedModel: tracing and export take longer than they do."""

    def export(run, fold):
        (run.fold_path(fold) / "saved_model").mkdir()
        (run.fold_path(fold) / "saved_model" / "saved_model.pb").touch()

    monkeypatch.setattr("doubleunet_bs.serving.export.export_fold", export)
    tensorflow.config.run_functions_eagerly(True)
    yield
    tensorflow.config.run_functions_eagerly(False)


@pytest.fixture
def command(trained_run, tmp_path, capsys):
    """Run predict; returns exit code, standard output and standard error."""

    def run(*arguments, out=tmp_path / "out"):
        code = main(["predict", *map(str, arguments), "--model", str(trained_run / "fold_01"), "--out", str(out)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    run.out = tmp_path / "out"
    return run
