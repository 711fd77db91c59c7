"""A batch in micro-batches gives the gradient of the whole batch."""

from pathlib import Path

import keras
import numpy as np
import pytest
from forked import run_forked
from small_network import small_network
from synthetic_shards import SyntheticShards

from doubleunet_bs.dataset.pipeline import EpochPlan, evaluation_micro_batches, training_micro_batches
from doubleunet_bs.errors import SettingsError
from doubleunet_bs.runs.experiments import paper_experiment
from doubleunet_bs.training import build_network as build_module
from doubleunet_bs.training.devices import check_batch_size, images_at_once, open_replicas
from doubleunet_bs.training.steps import Steps, make_loss
from doubleunet_bs.training.trainer import Trainer
from doubleunet_bs.training.training_state import TrainingTask

SHARDS = SyntheticShards(scans=12)


def convolutions(normalise: bool) -> keras.Model:
    keras.utils.set_random_seed(3)
    image = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    if normalise:
        x = keras.layers.BatchNormalization(name="bn")(x)
    return keras.Model(image, {f"output{n}": keras.layers.Conv2D(3, 1, activation="softmax")(x) for n in (1, 2)})


def one_step(name: str, images: int, accumulate: int, normalise: bool = False):
    """Loss, counts and model after one step of plain gradient descent, in which a wrong factor shows."""
    replicas = open_replicas("cpu")
    with replicas.strategy.scope():
        model = convolutions(normalise)
        optimizer = keras.optimizers.SGD(0.5)
        optimizer.build(model.trainable_variables)
    steps = Steps(model, optimizer, make_loss(paper_experiment(name)), replicas, accumulate=accumulate)
    batches = training_micro_batches(SHARDS, EpochPlan(range(images), images, seed=0), range(1), accumulate)
    dataset = replicas.strategy.distribute_datasets_from_function(lambda context: batches)
    loss, counts, indices = steps.train(iter(dataset))
    assert set(indices) == set(range(images))
    return loss, counts, model


# Micro-batches of equal size, of unequal size, and a last batch of fewer images than micro-batches.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "images", "accumulate"),
    [
        ("dice", 4, 2),
        pytest.param("focal-tversky", 5, 3, marks=pytest.mark.slow),
        pytest.param("dice", 1, 2, marks=pytest.mark.slow),
    ],
)
def test_a_batch_in_micro_batches_is_the_whole_batch(name, images, accumulate):
    loss, counts, whole = one_step(name, images, 1)
    loss_in_micro_batches, counts_in_micro_batches, micro_batches = one_step(name, images, accumulate)
    assert loss_in_micro_batches == pytest.approx(loss, rel=1e-5) and counts_in_micro_batches == counts
    fresh = convolutions(False).get_weights()
    for start, one, other in zip(fresh, whole.get_weights(), micro_batches.get_weights(), strict=True):
        assert not np.array_equal(start, one)
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_the_first_pass_leaves_no_trace_in_the_moving_averages():
    """Each micro-batch moves them once, in the second pass: with momentum 0.99 twice 1 % of their means."""
    _, _, model = one_step("dice", 4, 2, normalise=True)
    start = convolutions(normalise=True)
    first, second = (np.stack([SHARDS.grey(int(i)) for i in part]) for part in np.array_split(_order(4), 2))
    features = keras.Model(start.input, start.get_layer("bn").input)
    means = [
        features(np.repeat(part[..., None] / 255.0, 3, axis=-1).astype(np.float32)).numpy().mean((0, 1, 2))
        for part in (first, second)
    ]
    expected = 0.99 * (0.01 * means[0]) + 0.01 * means[1]
    np.testing.assert_allclose(model.get_layer("bn").moving_mean.numpy(), expected, rtol=1e-4, atol=1e-6)


def _order(images):
    from doubleunet_bs.dataset.pipeline import epoch_order

    return epoch_order(images, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize(("accumulate", "images"), [(1, [4, 1]), (2, [2, 2, 1]), (4, [1] * 5)])
def test_validation_takes_no_more_images_at_once_than_training(tmp_path, monkeypatch, accumulate, images):
    monkeypatch.setattr(build_module, "double_unet", small_network)
    experiment = paper_experiment("dice", epochs=1, accumulate=accumulate, encoder_weights="none")
    task = TrainingTask(tmp_path / "run", "t", experiment, SHARDS, [0, 1, 2, 3], [6, 7, 8, 9, 10])
    trainer = Trainer(task, open_replicas("cpu"), show_progress=False)
    trainer._build()
    shown = []

    def noting(*arguments):
        shown.extend(len(micro_batch["grey"]) for micro_batch in evaluation_micro_batches(*arguments))
        return evaluation_micro_batches(*arguments)

    monkeypatch.setattr("doubleunet_bs.training.trainer.evaluation_micro_batches", noting)
    found = trainer._validate()
    assert shown == images and max(images) == images_at_once(experiment)
    # And what is found does not depend on it.
    trainer.experiment = paper_experiment("dice", batch_size=5)
    loss, counts = trainer._validate()
    assert found[0] == pytest.approx(loss, rel=1e-5) and found[1] == counts


def test_micro_batches_without_an_image_are_refused():
    with pytest.raises(SettingsError, match="5 micro-batches for a batch of 4"):
        paper_experiment("dice", accumulate=5)
    with pytest.raises(SettingsError, match="--batch-size 4 is too small for 2 .* --accumulate 4: use 8 or more"):
        check_batch_size(4, 2, 4)


PEAK = """
import re, sys

def peak():
    # Not ru_maxrss: that is inherited from the process that started this one.
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read()).group(1))

accumulate = int(sys.argv[1])
from doubleunet_bs.tensorflow_setup import import_tensorflow
tf = import_tensorflow()
import keras, numpy as np
from two_convolutions import two_convolutions
from doubleunet_bs.runs.experiments import paper_experiment
from doubleunet_bs.training.devices import open_replicas
from doubleunet_bs.training.steps import Steps, make_loss
replicas = open_replicas("cpu")
with replicas.strategy.scope():
    model = two_convolutions((640, 512, 3))
    optimizer = keras.optimizers.SGD(1e-3)
    optimizer.build(model.trainable_variables)
steps = Steps(model, optimizer, make_loss(paper_experiment("dice")), replicas, accumulate=accumulate)
n = 8 // accumulate
micro_batch = {"grey": np.zeros((n, 640, 512), np.uint8), "labels": np.ones((n, 640, 512), np.uint8),
         "weights": np.ones(n, np.float32), "index": np.arange(n, dtype=np.int32)}
data = tf.data.Dataset.from_tensors(micro_batch).repeat()
before = peak()
steps.train(iter(replicas.strategy.distribute_datasets_from_function(lambda context: data)))
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux' /proc")
def test_micro_batches_save_memory():
    """What they are there for: nothing but an order among them keeps a graph from holding all of them at once."""
    grown = [int(line) for line in run_forked(PEAK, [(1,), (4,)], at_once=1)]
    print(
        f"peak memory over the start: {grown[0] / 1024:.0f} MB at once, {grown[1] / 1024:.0f} MB in four micro-batches"
    )
    assert grown[1] < 0.75 * grown[0]
