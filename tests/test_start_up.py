"""What is imported when: nothing heavy for `--help`, no pydicom for shards, of Keras' own imports only what is used."""

import subprocess
import sys
from pathlib import Path

import pytest

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


def test_the_package_its_shards_and_kept_scores_need_neither_tensorflow_nor_pydicom():
    said = run(
        "import sys, doubleunet_bs\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
        "import doubleunet_bs.preparation.shards, doubleunet_bs.training.history, doubleunet_bs.training.run_folder\n"
        "names = ('tensorflow', 'keras', 'pydicom', 'gdcm', 'matplotlib', 'scipy')\n"
        "print([name for name in names if name in sys.modules])\n"
        "import doubleunet_bs.evaluation.fold_scores, doubleunet_bs.evaluation.statistics\n"
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


@pytest.mark.slow
def test_what_was_imported_before_stays():
    said = run(
        "import matplotlib\n"
        "from doubleunet_bs.tensorflow_setup import import_tensorflow\n"
        "import_tensorflow()\n"
        "import sys\n"
        "print(sys.modules['matplotlib'] is matplotlib)\n"
    )
    assert said.strip() == "True"
