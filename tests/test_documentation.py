"""README and assets/docs: every command runs, every Python example runs, every file they name is there.

The commands run as written, in one folder per page, from top to bottom. Training is shortened by options, and the
network is replaced by one convolution, whatever its number of classes. Benchmarks only show that they know the options.
What needs Docker, Slurm or Kubernetes is not run, but the files it names must exist.
"""

import configparser
import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from intensity_run import intensity_model, make_run, region_model
from PIL import Image
from public_layouts import write_masks, write_paraguay, write_pictures, write_skeletons

from doubleunet_bs.__main__ import main
from doubleunet_bs.phantom import make_cohort
from doubleunet_bs.scans import Pseudonyms, read_scan

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "assets" / "docs"
# hospital.md has a test of its own, with an archive and a viewer: tests/node/test_hospital_page.py.
PAGES = [ROOT / "README.md", *sorted(page for page in DOCS.glob("*.md") if page.name != "hospital.md")]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHORT = ["--epochs", "1", "--folds", "3", "--encoder-weights", "none"]
NOT_RUN = ("docker", "kubectl", "sbatch", "mkdir")


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of every fenced block."""
    return FENCE.findall(page.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def desk(tmp_path_factory):
    """The folders that the pages talk of: exports of two cohorts with their annotations, and one annotated scan."""
    folder = tmp_path_factory.mktemp("desk")
    for name, cancer, seed in (("", "breast", 1), ("prostate_", "prostate", 2), ("other_", "breast", 3)):
        cohort = make_cohort(folder / "made", 5, cancer=cancer, positive_fraction=0.8, seed=seed)
        shutil.move(cohort / "scans", folder / f"{name}export")
        shutil.move(cohort / "labels", folder / f"{name}labels")
        shutil.rmtree(cohort)
    shutil.copy(folder / "export" / "phantom_0001.dcm", folder / "scan.dcm")
    shutil.copy(folder / "labels" / "phantom_0001_anterior.json", folder / "scan_anterior.json")
    scan = read_scan(folder / "scan.dcm")
    for place, counts in (("ANT", scan.anterior), ("POST", scan.posterior)):
        (folder / "pictures" / place).mkdir(parents=True)
        Image.fromarray(np.minimum(counts, 254).astype(np.uint8)).save(folder / "pictures" / place / "phantom_0001.png")
    shutil.copytree(ROOT / "assets", folder / "assets")
    Pseudonyms(b"a key for documentation tests...").save(folder / "shards.identities.json")
    return folder


@pytest.fixture(scope="session")
def trained_desk(desk, tmp_path_factory, tensorflow):
    """The same after `prepare` and with trained runs: where every page but the README begins."""
    from doubleunet_bs.runs.run_folder import open_run
    from doubleunet_bs.serving.export import export_fold

    folder = tmp_path_factory.mktemp("trained_desk") / "desk"
    shutil.copytree(desk, folder)
    with contextlib.chdir(folder):
        for name in ("", "prostate_", "other_"):
            shards = {"": "shards", "prostate_": "prostate", "other_": "other_shards"}[name]
            prepare = f"prepare --scans {name}export --labels {name}labels --out {shards} --key shards.identities.json"
            assert main(shlex.split(prepare)) == 0
        make_run(Path("run"), Path("shards"), folds=(1, 2))
        make_run(Path("run_dice"), Path("shards"), folds=(1,), experiment="dice-otsu")
        for run_folder, fold in (("run", 1), ("run", 2), ("run_dice", 1)):
            export_fold(open_run(run_folder), fold)
    return folder


def short_network(shape, classes=3, *args, **kwargs):
    """One convolution."""
    return region_model(*shape[:2], 1) if classes > 4 else intensity_model(*shape[:2], classes=classes)


@contextlib.contextmanager
def small_networks():
    """Training builds a network that takes no time."""
    import doubleunet_bs.training.build_network  # noqa: F401 - it must be there to be changed

    with pytest.MonkeyPatch.context() as patch:
        for module in [module for name, module in sys.modules.items() if name.startswith("doubleunet_bs.training")]:
            if hasattr(module, "double_unet"):
                patch.setattr(module, "double_unet", short_network)
        yield


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_and_example_runs(page, desk, trained_desk, tmp_path, monkeypatch):
    folder = tmp_path / "desk"
    shutil.copytree(desk if page.stem == "README" else trained_desk, folder)
    if page.stem == "training":
        shutil.rmtree(folder / "run")
        shutil.rmtree(folder / "prostate")
    if page.stem == "phantom_results":
        for kind, name in (("export", "scans"), ("labels", "labels")):
            shutil.copytree(folder / kind, folder / "demo" / "phantoms" / name)
    if page.stem == "public_data":
        write_pictures(folder / "bs80k")
        write_masks(folder / "bs80k_masks")
        write_skeletons(folder / "bs80k_skeleton")
        write_paraguay(folder / "paraguay", traps=False)
    monkeypatch.chdir(folder)
    names: dict = {"__name__": "example"}
    with small_networks():
        if page.stem == "README":
            prostate = (
                "prepare --scans prostate_export --labels prostate_labels --out prostate --key shards.identities.json"
            )
            assert main(shlex.split(prostate)) == 0
        for language, text in blocks(page):
            if language == "bash":
                for line in text.replace("\\\n", " ").splitlines():
                    if line.strip():
                        run(line.split(" #")[0].strip())
            elif language == "python":
                with model_server(text) as answered:
                    exec(compile(answered, str(page), "exec"), names)


def run(line: str) -> None:
    """Run one command of a page, or check what it names."""
    words = shlex.split(os.path.expandvars(line))
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if words[0] == "export" or words[0] in NOT_RUN:
        for word in words[1:]:
            if word.startswith("assets/"):
                assert (ROOT / word).exists(), line
    elif words[:2] == ["pip", "install"]:
        check_extras(line)
    elif words[0] == "python":
        script = ROOT / words[1]
        arguments = [sys.executable, str(script), "--help"]
        shown = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
        missing = [word for word in words[2:] if word.startswith("--") and word not in shown]
        assert not missing, f"{line}: {missing}"
    else:
        assert words[0] == "doubleunet-bs", line
        with model_server(" ".join(words)) as answered:
            words = shlex.split(answered)
            options = {"train": SHORT, "demo": [*SHORT, "--patients", "10"]}
            short = options.get(words[1], [])
            if words[1] == "train" and {"bs80k_shards", "bs80k_skeleton_shards", "bs80k_benign_shards"} & {*words}:
                short = [*SHORT[:2], *SHORT[4:]]  # the published split is one fold
            if words[1] == "train" and "--resume" in words:
                # As if it had been interrupted before its export.
                shutil.rmtree("run/fold_01/saved_model")
            assert main([*words[1:], *short]) == 0, line


@contextlib.contextmanager
def model_server(text: str):
    """The text with the address of a server for run/fold_01, where it names one."""
    addresses = {"grpc://127.0.0.1:8500": "grpc", "http://127.0.0.1:8501": "rest"}
    if not any(address in text for address in addresses):
        yield text
        return
    from model_server import LoopbackServer

    server = LoopbackServer(Path("run/fold_01/saved_model"), "focal-tversky-otsu-fold-01")
    try:
        for address, attribute in addresses.items():
            text = text.replace(address, getattr(server, attribute))
        yield text
    finally:
        server.close()


def check_extras(line: str) -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    for extras in re.findall(r"\[([\w,]+)\]", line):
        assert set(extras.split(",")) <= set(setup["options.extras_require"]), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_and_file_is_there(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / target).exists(), target
    for name in re.findall(r"`((?:tests|assets)/[\w/.]+)`", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`([\w/]+\.py)`", text):
        places = (ROOT / name, ROOT / "doubleunet_bs" / name, ROOT / "tests" / "benchmarks" / name)
        assert any(place.exists() for place in places), name
    for name in re.findall(r"`((?:scans|phantom|network|evaluation|preparation|training|inference|results)/)`", text):
        assert (ROOT / "doubleunet_bs" / name).is_dir(), name


def test_readme_is_one_page():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 160
    assert sum(len(line.split()) for line in lines) <= 1000
    assert next(number for number, line in enumerate(lines) if line.startswith("doubleunet-bs inspect")) < 90
