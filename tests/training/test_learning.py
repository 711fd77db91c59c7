"""Proof that it learns: the Double U-Net overfits phantoms and their mirror images, with every loss and head.

Two phantoms of the coarse matrix, 64 x 64 pixels around the trunk of the anterior view. Classes and settings are those
of the paper's rows, except for a mirror image of each scan, the learning rate (2e-3), the batch-normalisation momentum
(0.6), the random start of the encoder and a quarter of the channels. The code that builds the network is that of the
real one.

Each of these faults makes the proof fail (tried): a loss without the term of output 1, of output 2 or of the metastatic
class, a second network that does not get the class maps of the first, mirrored images with labels that are not
mirrored.
"""

import dataclasses
import functools
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.applications import vgg19

from doubleunet_bs.constants import METASTATIC
from doubleunet_bs.dataset.pipeline import training_micro_batches
from doubleunet_bs.network.metrics import metastatic_mask, network_input
from doubleunet_bs.phantom import make_phantom
from doubleunet_bs.pixel_counts import precision_sensitivity_f1
from doubleunet_bs.preparation import prepare_scan
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.runs.experiments import paper_experiment
from doubleunet_bs.scans.bone_scan import BoneScan
from doubleunet_bs.training.devices import choose_precision, open_replicas
from doubleunet_bs.training.trainer import Trainer
from doubleunet_bs.training.training_state import TrainingTask

pytestmark = pytest.mark.slow

TRUNK = np.s_[32:96, 0:64]
PHANTOMS = 2
SMALLEST_BURDEN = 30
STEPS = 120
NARROWER = 4


@dataclasses.dataclass(frozen=True)
class TrunkCase:
    case: str
    patient: str
    group: str
    metastatic_pixels: int
    gains: tuple[float, float]


class Trunks:
    """The first phantoms of seed 0 with enough metastatic pixels in the trunk, in place of shards."""

    def __init__(self):
        self.settings = PreparationSettings(bin=4)
        self.image_shape = (64, 64)
        self.fingerprint = "trunks of phantoms"
        self.pictures, self.cases = [], []
        for number in range(60):
            phantom = make_phantom(0, number)
            scan = BoneScan(phantom.anterior, phantom.posterior, phantom.pixel_spacing_mm, f"case-{number}")
            prepared = prepare_scan(scan, phantom.lesions, self.settings)
            pixels = int(np.count_nonzero(prepared.labels[TRUNK] == METASTATIC))
            if pixels >= SMALLEST_BURDEN:
                gains = (prepared.gains[0],) * 2
                self.cases.append(TrunkCase(f"case-{number}", f"patient-{number}", "positive", pixels, gains))
                self.pictures.append((prepared.grey[TRUNK], prepared.labels[TRUNK], prepared.counts[TRUNK]))
            if len(self.cases) == PHANTOMS:
                return

    def grey(self, index):
        return self.pictures[index][0]

    def labels(self, index):
        return self.pictures[index][1]

    def counts(self, index):
        return self.pictures[index][2]


@pytest.fixture(scope="module")
def trunks():
    return Trunks()


@pytest.fixture
def narrow(monkeypatch):
    """Every layer of the real network, with a quarter of the channels."""

    def convolution(filters, *args, **kwargs):
        return keras.layers.Conv2D(filters // NARROWER, *args, **kwargs)

    monkeypatch.setattr(vgg19, "layers", types.SimpleNamespace(**{**vars(vgg19.layers), "Conv2D": convolution}))
    module = sys.modules["doubleunet_bs.network.double_unet"]
    for name in ("DECODER_FILTERS", "ENCODER2_FILTERS"):
        monkeypatch.setattr(module, name, tuple(filters // NARROWER for filters in getattr(module, name)))
    monkeypatch.setattr(module, "ASPP_FILTERS", module.ASPP_FILTERS // NARROWER)


def segment(model, grey):
    """The masks of output 1 and output 2, as they will be used: with the moving averages."""
    outputs = model(network_input(grey), training=False)
    swapped = {"output2": outputs["output1"]} if isinstance(outputs, dict) else outputs[..., ::-1]
    return metastatic_mask(swapped), metastatic_mask(outputs)


def f1_of(mask, labels) -> float:
    truth, mask = labels == METASTATIC, np.asarray(mask)
    counts = (int((truth & mask).sum()), int((~truth & mask).sum()), int((truth & ~mask).sum()))
    return precision_sensitivity_f1(*counts)[2] or 0.0


@pytest.mark.parametrize("name", ["baseline", "dice", "focal-tversky"])
def test_the_network_overfits_phantoms_and_their_mirror_images(tmp_path, trunks, narrow, name):
    replicas, cases = choose_precision(open_replicas("cpu"), "auto"), list(range(PHANTOMS))
    settings = {"learning_rate": 2e-3, "bn_momentum": 0.6, "encoder_weights": "none", "flip": "merged"}
    experiment = paper_experiment(name, epochs=STEPS, batch_size=2 * PHANTOMS, **settings)
    task = TrainingTask(tmp_path / "run", name, experiment, trunks, cases, cases)
    trainer = Trainer(task, replicas, show_progress=False)
    trainer._build()
    before = [keras.ops.convert_to_numpy(weight).copy() for weight in trainer.model.trainable_weights]
    micro_batches = training_micro_batches(trunks, trainer.plan, range(STEPS), 1, augmentation=trainer.augmentation)
    iterator = iter(trainer._distribute(micro_batches))
    masks_of = tf.function(functools.partial(segment, trainer.model), autograph=False)
    # The phantoms as they are, then mirrored here.
    grey, labels = (np.stack([image(index) for index in cases]) for image in (trunks.grey, trunks.labels))
    grey, labels = (np.concatenate([images, images[:, :, ::-1]]) for images in (grey, labels))
    reached = []
    for step in range(1, STEPS + 1):
        _, counts, _ = trainer.steps.train(iterator)
        # Only once the batch itself is found.
        if step % 5 == 0 and (precision_sensitivity_f1(*counts)[2] or 0) > 0.9:
            first, second = masks_of(grey)
            scores = [f1_of(second[:PHANTOMS], labels[:PHANTOMS]), f1_of(second[PHANTOMS:], labels[PHANTOMS:])]
            reached.append((step, f1_of(first, labels), *scores))
            if min(scores) > 0.9 and reached[-1][1] > 0.75:
                break
    after = zip(trainer.model.trainable_weights, before, strict=True)
    unchanged = [weight.path for weight, start in after if (keras.ops.convert_to_numpy(weight) == start).all()]
    # In so narrow a network a gate of squeeze and excitation has one unit, which may never fire.
    assert all("_se_" in path for path in unchanged), "both networks and the encoder must train"
    # Network 2 works with the class maps of network 1: without them it finds nothing.
    kernel, bias = trainer.model.get_layer("output1_logits").get_weights()
    silent = np.where(np.arange(len(bias)) == 0, 9.0 if len(bias) > 1 else -9.0, -9.0)
    trainer.model.get_layer("output1_logits").set_weights([0 * kernel, silent])
    deaf = f1_of(masks_of(grey)[1], labels)
    print(
        f"{name}: steps, F1 of output 1, of output 2, of output 2 mirrored: {np.round(reached, 3)}; unlinked {deaf:.3f}"
    )
    assert reached and min(reached[-1][2:]) > 0.9
    assert reached[-1][1] > 0.75, "output 1 has a loss of its own"
    assert deaf < 0.7
