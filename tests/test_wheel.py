"""The wheel holds the whole package: demo and prediction run where nothing else of the project is."""

import os
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Without what leads Python to the source of the project.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def call(*command, cwd) -> str:
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def copy_source(source: Path) -> None:
    """Copy what is installed, so that no build folder of the project gets into a wheel and none is left there."""
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(ROOT / "doubleunet_bs", source / "doubleunet_bs", ignore=ignored)
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    copy_source(source)
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder)
    call(sys.executable, "-m", "pip", "wheel", *options, source, cwd=folder)
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def programs(wheel, tmp_path_factory) -> Path:
    """The bin folder of a new environment: the wheel is installed, every other package comes from this environment."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    call(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    own = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    # Lines of a .pth file are plain folders: an editable install of this project in one of them has no effect.
    borrowed = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()])
    (Path(own) / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
    return folder / "bin"


def test_every_file_of_the_package_is_in_the_wheel_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    paths = (path for path in (ROOT / "doubleunet_bs").rglob("*") if path.is_file() and path.suffix != ".pyc")
    assert packed == {path.relative_to(ROOT).as_posix() for path in paths}
    assert "doubleunet_bs/py.typed" in packed


def test_demo_and_prediction_in_an_empty_folder(programs, tmp_path):
    place = call(programs / "python", "-c", "import doubleunet_bs; print(doubleunet_bs.__file__)", cwd=tmp_path)
    assert Path(place.strip()).is_relative_to(programs.parent)
    command = programs / "doubleunet-bs"
    assert "demo" in call(command, "--help", cwd=tmp_path)
    small = ("--patients", 10, "--folds", 3, "--epochs", 1)
    assert "says nothing about patients" in call(command, "demo", *small, cwd=tmp_path)
    fold = tmp_path / "demo" / "run" / "fold_01"
    assert (fold / "saved_model" / "saved_model.pb").is_file() and (fold / "scores.json").is_file()
    assert "</html>" in (tmp_path / "demo" / "run" / "report.html").read_text()
    scan = tmp_path / "demo" / "phantoms" / "scans" / "phantom_0001.dcm"
    assert "1 of 1 scans segmented" in call(command, "predict", scan, "--model", fold, "--out", "out", cwd=tmp_path)
    [result] = (tmp_path / "out").glob("case-*")
    assert (result / "result.json").is_file() and "</html>" in (result / "report.html").read_text()
    assert "Double U-Net" in call(command, "evaluate", "demo/run", cwd=tmp_path)


def test_an_editable_install_works_beside_the_clone(tmp_path):
    """There Python sees a folder of the package's name that is no package."""
    copy_source(tmp_path / "doubleunet_bs")
    build = f"from setuptools import build_meta; build_meta.build_editable({str(tmp_path)!r})"
    call(sys.executable, "-c", build, cwd=tmp_path / "doubleunet_bs")
    [path] = tmp_path.glob("*.whl")
    zipfile.ZipFile(path).extractall(tmp_path / "installed")
    work = (
        f"import site; site.addsitedir({str(tmp_path / 'installed')!r}); import doubleunet_bs as it; print(it.__file__)"
    )
    # -S: without the packages of this interpreter, among them perhaps this one.
    place = Path(call(sys.executable, "-S", "-c", work, cwd=tmp_path).strip())
    assert place == tmp_path / "doubleunet_bs" / "doubleunet_bs" / "__init__.py"
