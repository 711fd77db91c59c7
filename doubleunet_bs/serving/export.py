"""A trained fold, or several as an ensemble -> a SavedModel that runs without this package.

Endpoints, all for any number of scans (`inference.engines` has their types and shapes):

- `serving_default` segments prepared grey images. Scaling to the network's input is in the graph.
- `raw_counts` prepares raw views, segments them and maps the result back: see `raw_counts.raw_counts_function`.
- `model_description` gives the content of `assets.extra/model.json`: how images are prepared, where the model is from.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from doubleunet_bs.errors import RunError, SettingsError, full_disk
from doubleunet_bs.files import replaced_folder, write_json
from doubleunet_bs.inference.engines import (
    DESCRIPTION_ENDPOINT,
    DESCRIPTION_INPUT,
    DESCRIPTION_OUTPUT,
    ENDPOINT,
    RAW_ENDPOINT,
    has_raw_counts,
)
from doubleunet_bs.inference.keras_model import (
    Network,
    image_signature,
    load_keras_model,
    mean_of,
    segmentation_function,
)
from doubleunet_bs.inference.model_description import DESCRIPTION, ModelDescription, describe_ensemble
from doubleunet_bs.inference.model_folder import TrainedFold, open_fold, open_members
from doubleunet_bs.inference.saved_model_check import FILES, GRAPH, check_graph, hash_files
from doubleunet_bs.runs.run_folder import SAVED_MODEL, Run
from doubleunet_bs.serving.model_card import write_model_card
from doubleunet_bs.serving.raw_counts import counts_signature, raw_counts_function


def export_fold(run: Run, fold: int) -> Path:
    """Write `fold_XX/saved_model/`. An older export stays until the new one is complete.

    Args:
        run: the opened run.
        fold: number of a trained fold, from 1.

    Returns:
        The SavedModel folder.

    Raises:
        RunError: the fold is not trained, or its model is damaged.
    """
    trained = open_fold(run, fold)
    path = trained.path / SAVED_MODEL
    network, description = _load_network(trained), trained.describe()
    with replaced_folder(path) as folder:
        write_saved_model(folder, network, description)
        write_model_card(folder, description, run)
    return path


def export_ensemble(
    run: Run, out: str | os.PathLike, folds: Sequence[int] | None = None, force: bool = False
) -> ModelDescription:
    """Write a SavedModel like that of a fold, whose probabilities are the mean over several folds.

    Args:
        run: the opened run.
        out: the folder. An older ensemble there stays until the new one is complete.
        folds: at least two trained folds; None: all trained folds.
        force: also take folds that found nothing on their own validation scans.

    Returns:
        Its description, which names its members.

    Raises:
        SettingsError: fewer than two folds, one named twice, or `out` is something other than an exported model.
        RunError: a fold is not trained or damaged, the folds do not belong together, or one needs `force`.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / DESCRIPTION).is_file())):
        raise SettingsError(f"{out}: exists and is not an exported model: choose another --out folder")
    members = open_members(run, folds)
    description = describe_ensemble([member.describe() for member in members])
    if not force:
        description.check_quality(run.path, "leave the fold out with --folds")
    networks = [_load_network(member) for member in members]
    with replaced_folder(out) as folder:
        write_saved_model(folder, mean_of(networks), description)
        write_model_card(folder, description, run)
    return description


def write_saved_model(folder: Path, network: Network, description: ModelDescription) -> None:
    """Write graph, weights and description into an empty folder, without device placement and source lines.

    Args:
        folder: an empty folder.
        network: a Keras model, or a function like that of `keras_model.mean_of`.
        description: where `description.preparation` gives images of another size than the model takes, there is no
            endpoint `raw_counts`.

    Raises:
        OSError: the disk or a quota is full.
    """
    text = json.dumps(description.to_json())
    # Each is traced once. `keras.export.ExportArchive` traces each to list its variables, and TensorFlow again to save.
    functions = {ENDPOINT: _traced(segmentation_function(network), image_signature(*description.image_shape))}
    if has_raw_counts(description.image_shape, description.preparation):
        raw = raw_counts_function(functions[ENDPOINT], description.preparation)
        functions[RAW_ENDPOINT] = _traced(raw, counts_signature())
    functions[DESCRIPTION_ENDPOINT] = _traced(
        lambda query: {DESCRIPTION_OUTPUT: tf.fill(tf.shape(query), tf.constant(text))},
        tf.TensorSpec((None,), tf.uint8, name=DESCRIPTION_INPUT),
    )
    saved = tf.Module()
    for name, function in functions.items():
        setattr(saved, name, function)
    saved.weights = functions[ENDPOINT].variables
    try:
        options = tf.saved_model.SaveOptions(save_debug_info=False)
        tf.saved_model.save(saved, str(folder), signatures=functions, options=options)
    except tf.errors.ResourceExhaustedError as error:
        if full := full_disk(error, folder):
            raise full from None
        raise
    check_graph(folder / GRAPH)  # A new network may need an operation that is not on the list yet.
    write_json(folder / DESCRIPTION, {**description.to_json(), FILES: hash_files(folder)})


def _load_network(trained: TrainedFold) -> keras.Model:
    """The network of a fold. `RunError`: damaged, or for images of another size than the run prepares."""
    network = load_keras_model(trained.model_path)
    own, prepared = tuple(network.input_shape[1:3]), tuple(trained.run.data["image_shape"])
    if own != prepared:
        raise RunError(
            f"{trained.model_path}: takes images of {own[0]} x {own[1]} pixels, "
            f"but the run prepares {prepared[0]} x {prepared[1]}"
        )
    return network


def _traced(function: Callable[..., Any], signature: tf.TensorSpec) -> Any:
    """The graph of an endpoint, a `ConcreteFunction`. Another endpoint can call it."""
    return tf.function(function, input_signature=[signature], autograph=False).get_concrete_function()
