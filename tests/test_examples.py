"""The examples in the docstrings of all modules run, but for those that need files (`doctest: +SKIP`)."""

import doctest
import importlib
from pathlib import Path

import pytest

import doubleunet_bs

FOLDER = Path(doubleunet_bs.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(FOLDER.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in FOLDER.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


def test_modules_with_examples_are_found():
    assert len(MODULES) > 20


# The network and what runs it are slow.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (".network." in name)) for name in MODULES]
)
def test_examples(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0
