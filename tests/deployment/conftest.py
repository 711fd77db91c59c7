"""A run whose model calls grey levels above 150 metastatic (see `intensity_run`), its export, and a scan as a file."""

import sys
from pathlib import Path

import numpy as np
import pytest
from intensity_run import make_run, make_shards

sys.path.append(str(Path(__file__).parents[1] / "preparation"))  # for `bodies`


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


@pytest.fixture(scope="session")
def live_network(tensorflow, scan):
    """The real network at 160 x 128 pixels with random weights. It calls about a tenth of `scan` metastatic."""
    import keras

    from doubleunet_bs.network import double_unet
    from doubleunet_bs.network.inputs import network_input
    from doubleunet_bs.preparation import PreparationSettings, prepare_scan

    keras.utils.set_random_seed(0)
    model = double_unet((160, 128, 3))
    grey = prepare_scan(scan, settings=PreparationSettings(bin=4)).grey
    probability = np.asarray(model(network_input(grey[None]), training=False)["output2"])
    margin = np.log(probability[..., 2]) - np.log(probability[..., :2].max(axis=-1))
    bias = model.get_layer("output2_logits").bias
    bias.assign(bias + np.array([0, 0, -np.quantile(margin, 0.9)], np.float32))
    return model


@pytest.fixture(scope="session")
def exported_network(live_network, tmp_path_factory):
    """`live_network`, exported."""
    from test_saved_model_export import description

    from doubleunet_bs.deployment.saved_model import write_saved_model

    folder = tmp_path_factory.mktemp("network")
    write_saved_model(folder, live_network, description((160, 128)))
    return folder
