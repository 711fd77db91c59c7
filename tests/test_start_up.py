"""What is imported when: nothing heavy for `--help`, no pydicom for shards, of Keras' own imports only what is used."""

import ast
import configparser
import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from doubleunet_bs import tensorflow_setup
from doubleunet_bs.__main__ import VERBS

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("tensorflow", "keras", "numpy", "cv2", "pydicom", "scipy", "sklearn", "matplotlib", "highdicom", "PIL", "tqdm")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_of_every_verb_imports_nothing_heavy():
    said = run(
        "import sys\n"
        "from doubleunet_bs.__main__ import main\n"
        f"for verb in {list(VERBS)}:\n"
        "    try: main([verb, '--help'])\n"
        "    except SystemExit: pass\n"
        f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    assert said.count("usage: doubleunet-bs") == len(VERBS) and "heavy: []" in said


@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
def test_help_of_the_scripts_imports_nothing_heavy(script):
    said = run(
        "import atexit, runpy, sys\n"
        f"atexit.register(lambda: print('heavy:', [name for name in {HEAVY!r} if name in sys.modules]))\n"
        f"sys.argv = [{script!r}, '--help']\n"
        f"runpy.run_path({script!r}, run_name='__main__')"
    )
    assert "usage: doubleunet-bs" in said and "heavy: []" in said


@pytest.mark.slow
def test_the_package_its_shards_and_kept_scores_need_neither_tensorflow_nor_pydicom():
    said = run(
        "import sys, doubleunet_bs\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
        "import doubleunet_bs.preparation.shards, doubleunet_bs.runs.history, doubleunet_bs.runs.run_folder\n"
        "names = ('tensorflow', 'keras', 'pydicom', 'gdcm', 'matplotlib', 'scipy')\n"
        "print([name for name in names if name in sys.modules])\n"
        "import doubleunet_bs.evaluation.scores.fold_scores, doubleunet_bs.evaluation.scores.statistics\n"
        "print([name for name in ('tensorflow', 'keras', 'matplotlib') if name in sys.modules])"
    )
    assert said.splitlines() == ["[]", "[]", "[]"]


@pytest.mark.slow
def test_training_imports_no_scikit_learn_and_leaves_what_was_hidden_importable():
    said = run(
        "import sys\n"
        "from doubleunet_bs.tensorflow_setup import import_tensorflow\n"
        "import_tensorflow()\n"
        "import doubleunet_bs.training.stages\n"
        "names = ('sklearn', 'pydicom')\n"
        "print([name for name in names if name in sys.modules])\n"
        "import sklearn.metrics, matplotlib.figure\n"
        "print(sklearn.__name__, matplotlib.__name__)\n"
    )
    assert said.splitlines() == ["[]", "sklearn matplotlib"]


def test_what_was_imported_before_stays(tmp_path):
    """Stand-ins of TensorFlow and Keras: what stays and what is hidden is up to `import_tensorflow`."""
    (tmp_path / "keras.py").write_text("import sys\nseen = [sys.modules[name] for name in ('matplotlib', 'sklearn')]\n")
    (tmp_path / "tensorflow.py").write_text(
        "import types\nconfig = types.SimpleNamespace(list_physical_devices=lambda kind: ['GPU'])\n"
    )
    said = run(
        "import sys, matplotlib\n"
        "from doubleunet_bs.tensorflow_setup import import_tensorflow\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "import_tensorflow()\n"
        "import keras\n"
        "print(keras.seen == [matplotlib, None], sys.modules['matplotlib'] is matplotlib, 'sklearn' in sys.modules)\n"
    )
    assert said.strip() == "True True False"


@pytest.mark.parametrize(("asked", "chosen", "found"), [(True, None, "1"), (False, None, "0"), (False, "1", "1")])
def test_onednn_is_what_was_asked_for_unless_the_user_chose(monkeypatch, asked, chosen, found):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", chosen or "")
    if chosen is None:
        monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS")
    tensorflow_setup.import_tensorflow(onednn=asked)
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == found


@pytest.mark.parametrize(("stop", "shown"), [(KeyboardInterrupt, ""), (ImportError, "native chatter")])
def test_what_native_code_says_is_shown_where_the_import_fails_not_where_it_is_interrupted(
    stop, shown, capfd, monkeypatch
):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    with pytest.raises(stop), tensorflow_setup._native_stderr_held():
        os.write(2, b"native chatter")
        raise stop
    assert capfd.readouterr().err == shown


@pytest.mark.parametrize(
    ("device", "visible", "shown"), [("nvidia3", "3", True), ("nvidia0", "", False), ("", "0", False)]
)
def test_why_a_gpu_is_not_used_is_shown(device, visible, shown, capfd, monkeypatch, tmp_path, tensorflow):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(tensorflow_setup.may_have_gpus, "__defaults__", (tmp_path,))
    monkeypatch.setattr(tensorflow.config, "list_physical_devices", lambda kind: os.write(2, b"no driver") and [])
    (tmp_path / (device or "null")).touch()
    tensorflow_setup._import_quietly()
    assert (capfd.readouterr().err == "no driver") == shown


def test_threads_that_import_at_once_leave_standard_error_as_it_was(tmp_path):
    """Each would take the file of another for the terminal, and the last to leave would put it in its place.

    Nothing is redirected once TensorFlow is there.
    """
    (tmp_path / "keras.py").touch()
    (tmp_path / "tensorflow.py").write_text(
        "import os, time, types\n"
        "places = [os.fstat(2)]\n"
        "look = lambda kind: places.append(os.fstat(2)) or time.sleep(0.05) or ['GPU']\n"
        "config = types.SimpleNamespace(list_physical_devices=look)\n"
    )
    said = run(
        "import os, sys\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from doubleunet_bs.tensorflow_setup import import_tensorflow\n"
        "os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "before = os.fstat(2)\n"
        "with ThreadPoolExecutor(4) as threads:\n"
        "    [places, *_] = [module.places for module in threads.map(lambda _: import_tensorflow(), range(4))]\n"
        "print(os.path.samestat(os.fstat(2), before), [os.path.samestat(place, before) for place in places])\n"
    )
    assert said.strip() == "True [False, False]"


def imported_packages() -> set[str]:
    """First names of all modules from elsewhere that the package imports anywhere."""
    names: set[str] = set()
    for path in (ROOT / "doubleunet_bs").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(node.module or "")
    return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"doubleunet_bs"}


@pytest.mark.slow
def test_every_import_is_declared():
    """Named by a requirement or an extra of users, not only brought along by another package."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = [text for name, text in setup["options.extras_require"].items() if name not in ("test", "dev")]
    lines = "\n".join([setup["options"]["install_requires"], *extras]).splitlines()
    declared = {re.split(r"[\s\[<>=;]", line)[0].lower() for line in lines if line and not line.startswith("#")}
    providers = importlib.metadata.packages_distributions()
    missing = {
        name for name in imported_packages() if not declared & {one.lower() for one in providers.get(name, [name])}
    }
    assert missing == set()
