"""A run whose model calls grey levels above 150 metastatic (see `intensity_run`), its export, and a scan as a file."""

import pytest
from intensity_run import make_run, make_shards


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory, tensorflow):
    from doubleunet_bs.deployment.saved_model import export_fold
    from doubleunet_bs.training.run_folder import open_run

    folder = tmp_path_factory.mktemp("deployment")
    run = make_run(folder / "run", make_shards(folder / "shards"), folds=(1,))
    export_fold(open_run(run), 1)
    return run


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory):
    """A folder of two scans."""
    from doubleunet_bs.scans.phantom import make_cohort

    return make_cohort(tmp_path_factory.mktemp("deployment") / "phantoms", 2, positive_fraction=1.0, seed=3) / "scans"


@pytest.fixture(scope="session")
def scan(phantoms):
    from doubleunet_bs.scans import read_scan

    return read_scan(phantoms / "phantom_0001.dcm")
