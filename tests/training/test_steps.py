"""Training steps of a small network, run eagerly: they lower the loss in each precision. See also `test_learning`."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_network import small_network
from synthetic_shards import SyntheticShards
from trainers import fold_trainer

from doubleunet_bs.dataset.pipeline import EpochPlan, training_micro_batches
from doubleunet_bs.runs.create_run import create_run
from doubleunet_bs.runs.experiments import paper_experiment
from doubleunet_bs.training.devices import open_replicas
from doubleunet_bs.training.fast_kernels import can_train_in

SHARDS = SyntheticShards(scans=12)


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    monkeypatch.setattr("doubleunet_bs.training.build_network.double_unet", small_network)
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def built(tmp_path, precision="float32"):
    # With seed 0 a unit of the small network never fires.
    settings = {"folds": 3, "learning_rate": 1e-3, "encoder_weights": "none", "seed": 1}
    run = create_run(tmp_path, paper_experiment("focal-tversky", **settings), SHARDS)
    trainer = fold_trainer(run, SHARDS, 1, dataclasses.replace(open_replicas("cpu"), precision=precision))
    trainer._build()
    return trainer


def losses_of(trainer, steps, batch=4):
    """Losses of some steps on one and the same batch."""
    losses = []
    for _ in range(steps):
        batches = training_micro_batches(SHARDS, EpochPlan(trainer.train_cases, batch, seed=0), range(1), 1)
        losses.append(trainer.steps.train(iter(trainer._distribute(batches)))[0])
    return losses


def test_the_loss_falls_and_every_weight_moves(tmp_path):
    trainer = built(tmp_path)
    before = [keras.ops.convert_to_numpy(weight).copy() for weight in trainer.model.trainable_weights]
    losses = losses_of(trainer, 2)
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    after = [keras.ops.convert_to_numpy(weight) for weight in trainer.model.trainable_weights]
    unchanged = [
        weight.path
        for weight, a, b in zip(trainer.model.trainable_weights, before, after, strict=True)
        if (a == b).all()
    ]
    assert not unchanged, "both networks and the encoder must train"


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_with_float32_heads_and_losses(tmp_path, precision):
    if not can_train_in(precision.removeprefix("mixed_")):
        pytest.skip(f"no convolution in {precision} works here")
    trainer = built(tmp_path, precision=precision)
    assert trainer.model.get_layer("decoder_conv1").compute_dtype == precision.removeprefix("mixed_")
    for head in ("output1", "output1_logits", "output2", "output2_logits"):
        assert trainer.model.get_layer(head).compute_dtype == "float32"
    assert all(weight.dtype == "float32" for weight in trainer.model.trainable_weights)
    assert isinstance(trainer.optimizer, keras.optimizers.LossScaleOptimizer) == (precision == "mixed_float16")
    losses = losses_of(trainer, 2, batch=2)  # Two: float16 is computed number by number on a CPU.
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    assert keras.config.dtype_policy().name == "float32", "the policy of the process is left as it was"


@pytest.mark.slow
def test_loss_and_counts_are_those_of_the_outputs(tmp_path):
    """The step reports what the formula gives for the batch as a whole, both outputs added."""
    from doubleunet_bs.dataset.pipeline import load_micro_batch
    from doubleunet_bs.network.losses import FocalTverskyLoss
    from doubleunet_bs.network.metrics import confusion_counts, metastatic_mask, network_input

    trainer = built(tmp_path)
    cases = trainer.validation_cases
    loaded = load_micro_batch(SHARDS, cases, [1.0] * len(cases))
    outputs = trainer.model(network_input(loaded["grey"]), training=False)
    expected = sum(float(FocalTverskyLoss()(loaded["labels"], outputs[name])) for name in ("output1", "output2"))
    loss, counts = trainer._validate()
    assert loss == pytest.approx(expected, rel=1e-5)
    assert counts == np.sum(confusion_counts(loaded["labels"], metastatic_mask(outputs)), axis=0).tolist()
