"""Networks: the one that is trained, with its optimiser, under a strategy (paper, section 3.1), and the one that is tested."""

from collections.abc import Sequence
from pathlib import Path

import keras

from doubleunet_bs.network import double_unet
from doubleunet_bs.preparation.shards import ShardedDataset
from doubleunet_bs.training.experiments import Experiment
from doubleunet_bs.training.fused_adam import FusedAdam
from doubleunet_bs.training.devices import Replicas
from doubleunet_bs.training.start import encoder_variables, load_initial_weights, starting_head_bias


def build_network(
    experiment: Experiment,
    dataset: ShardedDataset,
    train_cases: Sequence[int],
    replicas: Replicas,
    precision: str,
    initial_weights: Path | None,
) -> tuple[keras.Model, keras.optimizers.Optimizer]:
    """The network at its start, and Adam with its variables made.

    Args:
        experiment: what is trained. dataset: opened shards. train_cases: indices into it. replicas: the devices.
        precision: of the layers; with "mixed_float16" the optimiser scales the loss.
        initial_weights: a file of weights of the whole network; None for the experiment's own start.

    Raises:
        RunError: weights that do not fit.
    """
    keras.utils.set_random_seed(experiment.seed)
    keras.config.set_dtype_policy(precision)
    try:
        with replicas.strategy.scope():
            model = double_unet(
                (*dataset.image_shape, 3),
                experiment.classes,
                experiment.encoder_weights if initial_weights is None else None,
                starting_head_bias(experiment, dataset, train_cases),
                synchronized=replicas.count > 1,
                bn_momentum=experiment.bn_momentum,
            )
            if initial_weights is not None:
                load_initial_weights(model, initial_weights)
            optimizer = FusedAdam(
                experiment.learning_rate,
                late=encoder_variables(model) if experiment.freeze_encoder else (),
                name="adam",
            )
            if precision == "mixed_float16":
                optimizer = keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale")
            optimizer.build(model.trainable_variables)
    finally:
        keras.config.set_dtype_policy("float32")
    return model, optimizer


def tested_model(image_shape: tuple[int, int], classes: int, weights: Path) -> keras.Model:
    """A plain float32 network with the weights of a file, which any single device opens."""
    model = double_unet((*image_shape, 3), classes)
    model.load_weights(weights)
    return model
