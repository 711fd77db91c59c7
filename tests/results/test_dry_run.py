"""`predict --dry-run` says what a run would do, and writes nothing."""

import shutil
import subprocess
import sys

import pytest

from doubleunet_bs.__main__ import main
from doubleunet_bs.inference.engines import choose_local


@pytest.mark.slow
def test_dry_run_writes_nothing_and_loads_no_network(phantoms, trained_run, tmp_path, scan):
    before = sorted(tmp_path.rglob("*"))
    arguments = ["predict", phantoms, "--model", trained_run / "fold_01", "--out", tmp_path / "out"]
    arguments += ["--labelme", tmp_path / "labels", "--log", tmp_path / "log.txt", "--keep-identity", "--dry-run"]
    code = (
        "import sys; from doubleunet_bs.__main__ import main; code = main(sys.argv[1:]);"
        "print(sorted({'tensorflow', 'keras', 'highdicom', 'openvino', 'grpc'} & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    *said, modules = done.stdout.splitlines()
    assert modules == "[]"
    assert said[0].endswith(f"engine {choose_local('auto')}")
    assert said[-1] == "dry run: 2 of 2 scans would be segmented; nothing was written"
    assert any(str(tmp_path / "out" / scan.case) in line for line in said)
    assert any("phantom_0001_anterior.json" in line for line in said)
    assert sorted(tmp_path.rglob("*")) == before


def test_dry_run_tells_what_would_fail(command, phantoms, trained_run, tmp_path):
    file = phantoms / "phantom_0001.dcm"
    assert command(file, "--outputs", "none")[0] == 0
    code, out, err = command(file, phantoms / "phantom_0002.dcm", "--dry-run")
    assert code == 1
    assert "exists already: give --skip-existing, --overwrite" in err
    assert "1 of 2 scans would be segmented" in out
    assert command(file, "--dry-run", model=tmp_path)[0] == 1
    assert command(file, "--dry-run", "--overwrite", model=trained_run / "fold_01" / "saved_model")[0] == 0


def test_dry_run_refuses_what_a_run_would(command, phantoms, trained_run, tmp_path):
    """Exit code and message of both."""
    file = phantoms / "phantom_0001.dcm"
    (tmp_path / "file").touch()
    assert command(file, "--outputs", "masks,labelme", out=tmp_path / "earlier")[0] == 0
    (earlier,) = (tmp_path / "earlier").glob("case-*")
    for arguments, expected, message in (
        (("--previous", file), 1, "is also the scan given with --previous"),
        (("--previous", earlier), 1, "is also the scan given with --previous"),
        (("--labelme", tmp_path / "file" / "labels"), 2, f"{tmp_path / 'file'}: is a file; --labelme names a folder"),
    ):
        for dry_run in ((), ("--dry-run",)):
            code, _, err = command(file, *arguments, *dry_run)
            assert code == expected and message in err, (arguments, dry_run, err)
    assert list(command.out.glob("*")) == []


def test_dry_run_names_the_engine_of_the_run(command, phantoms):
    file = phantoms / "phantom_0001.dcm"
    for engine, arguments in (("tensorflow", ()), ("serving", ("--server", "grpc://host:1"))):
        code, out, _ = command(file, "--engine", engine, *arguments, "--dry-run")
        assert code == 0 and out.splitlines()[0].endswith(f", engine {engine}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--engine", "serving"), "give both or neither"),
        (("--server", "grpc://host:8500"), "give both or neither"),
        (("--engine", "tensorflow", "--server", "grpc://host:8500"), "give both or neither"),
        (("--engine", "serving", "--server", "grpc://host"), "give it as grpc://HOST:PORT"),
        (("--engine", "serving", "--server", "grpc://host:1", "--deadline", "0"), "a deadline of 0 s"),
        (("--engine", "serving", "--server", "grpc://host:1", "--deadline", "nan"), "a deadline of nan s"),
        (("--engine", "serving", "--server", "grpc://host:1", "--precision", "float32"), "precision float32"),
        (("--deadline", "5"), "--deadline is only for --engine serving"),
        (("--engine", "openvino"), "the extra openvino is not installed"),
    ],
)
def test_engine_settings_are_refused_also_in_a_dry_run(command, phantoms, monkeypatch, arguments, message):
    monkeypatch.setattr("doubleunet_bs.inference.engines.has_openvino", lambda: False)
    for dry_run in ((), ("--dry-run",)):
        code, out, err = command(phantoms / "phantom_0001.dcm", *arguments, *dry_run)
        assert (code, out) == (2, "") and message in err and err.count("\n") == 1
    assert not command.out.exists()


@pytest.mark.parametrize("culprit", ["--model", "--skeleton"])
def test_a_dry_run_asks_no_server_and_names_what_is_no_folder(phantoms, tmp_path, capsys, culprit):
    words = ["--engine", "serving", "--server", "grpc://host:1", "--out", tmp_path / "out", "--dry-run"]
    for option in ("--model", "--skeleton"):
        words += [option, "on-server" if option == culprit else tmp_path]
    assert main(["predict", *map(str, (phantoms / "phantom_0001.dcm", *words))]) == 2
    assert "on-server: a dry run asks no server: name the folder" in capsys.readouterr().err


def test_a_dry_run_sees_that_there_is_no_export(command, phantoms, trained_run, tmp_path):
    run = shutil.copytree(trained_run, tmp_path / "run")
    shutil.rmtree(run / "fold_01" / "saved_model")
    for dry_run in ((), ("--dry-run",)):
        code, _, err = command(phantoms / "phantom_0001.dcm", *dry_run, model=run / "fold_01")
        assert code == 1 and "has no saved_model of its present weights" in err
