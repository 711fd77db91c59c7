"""The examples in the docstrings of the network run."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["", ".double_unet", ".losses", ".metrics"])
def test_examples(name):
    found = doctest.testmod(importlib.import_module(f"doubleunet_bs.network{name}"))
    assert found.attempted > 0 and found.failed == 0
