"""A run with known scores: see `intensity_run`."""

import shutil

import pytest
from intensity_run import make_run, make_shards


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("evaluation") / "shards")


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory, shards, tensorflow):
    return make_run(tmp_path_factory.mktemp("evaluation") / "run", shards)


@pytest.fixture
def own_run(trained_run, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(trained_run, tmp_path / "run")
