"""A trained fold -> a SavedModel that TensorFlow, Keras and TF Serving run without this package."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.files import replaced_folder
from doubleunet_bs.inference.endpoints import (
    ENDPOINT,
    PAPERS,
    PAPERS_ENDPOINT,
    PAPERS_INPUT,
    RAW_ENDPOINT,
    has_raw_counts,
)
from doubleunet_bs.inference.keras_model import image_signature, load_keras_model, mean_of, segmentation_function
from doubleunet_bs.inference.model_description import (
    DESCRIPTION,
    ModelDescription,
    describe_ensemble,
    describe_fold,
    write_description,
)
from doubleunet_bs.inference.trained_fold import TrainedFold, open_fold
from doubleunet_bs.serving.raw_counts import counts_signature, raw_counts_function
from doubleunet_bs.training.run_folder import SAVED_MODEL, Run


def export_fold(run: Run, fold: int) -> Path:
    """Write `fold_XX/saved_model/`; one that is there already is replaced by the finished new one.

    Endpoints, all for any number of scans:

    - `serving_default` takes `image`, (n, rows, columns) uint8 prepared grey images, and returns
      `metastatic_probability`, (n, rows, columns) float32 between 0 and 1, and `mask`, uint8 of the same shape, 1 where
      metastatic is the most probable class of output 2. Scaling to the network's input is in the graph.
    - `raw_counts` takes `counts`, the raw views, and prepares, segments and lays back inside the graph: see
      `raw_counts.raw_counts_function`.
    - `model_description` gives the content of `assets.extra/model.json`, which says how images must be prepared and
      where the model comes from.

    Args:
        run: the opened run.
        fold: a trained fold of it.

    Returns:
        The SavedModel folder.

    Raises:
        RunError: the fold is not trained, or its model is damaged.
    """
    trained = open_fold(run, fold)
    description = describe_fold(trained)
    model = load_network(trained, description)
    path = trained.path / SAVED_MODEL
    with replaced_folder(path) as folder:
        write_saved_model(folder, model, description)
    return path


def load_network(trained: TrainedFold, description: ModelDescription) -> keras.Model:
    """The network of a trained fold.

    Raises:
        RunError: damaged, or made for images of another size than its description says.
    """
    model = load_keras_model(trained.model_path)
    if tuple(model.input_shape[1:3]) != description.image_shape:
        raise RunError(
            f"{trained.model_path}: takes images of {model.input_shape[1]} x {model.input_shape[2]} pixels; the run "
            f"prepares {description.image_shape[0]} x {description.image_shape[1]}"
        )
    return model


def write_saved_model(folder: Path, model: Callable[..., Any], description: ModelDescription) -> None:
    """Write graph, weights and description into an empty folder. Device placement and source lines are not in it.

    Args:
        folder: where to.
        model: a network, or a function of its input like `predictions.mean_of`.
        description: a model of another image size than `description.preparation` gives has no endpoint `raw_counts`.
    """
    archive = keras.export.ExportArchive()
    # No archive.track(model): the endpoint brings its variables along, and tracking them once more writes each of them
    # a second time (Keras 3.15: 234 MB instead of 117 MB).
    rows, columns = description.image_shape
    segment = segmentation_function(model)
    archive.add_endpoint(ENDPOINT, segment, input_signature=[image_signature(rows, columns)])
    if has_raw_counts(description.image_shape, description.preparation):
        raw = raw_counts_function(segment, description.preparation)
        archive.add_endpoint(RAW_ENDPOINT, raw, input_signature=[counts_signature()])
    papers = json.dumps(description.to_json())
    archive.add_endpoint(
        PAPERS_ENDPOINT,
        lambda query: {PAPERS: tf.fill(tf.shape(query), tf.constant(papers))},
        input_signature=[tf.TensorSpec((None,), tf.uint8, name=PAPERS_INPUT)],
    )
    archive.write_out(str(folder), options=tf.saved_model.SaveOptions(save_debug_info=False), verbose=False)
    write_description(folder / DESCRIPTION, description)


def export_ensemble(run: Run, out: str | os.PathLike, folds: Sequence[int] | None = None) -> ModelDescription:
    """Write a SavedModel with the endpoints of a fold's, whose probabilities are the mean over the folds.

    Args:
        run: the opened run.
        out: the folder; an ensemble that is there already is replaced by the finished new one.
        folds: at least two trained folds; None: all that are trained.

    Returns:
        Its description, which names its members.

    Raises:
        SettingsError: fewer than two folds, one named twice, or `out` is something else than an exported model.
        RunError: a fold is not trained or damaged, or the folds do not belong together.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / DESCRIPTION).is_file())):
        raise SettingsError(f"{out}: exists and is not an exported model; choose another --out folder")
    folds = run.trained_folds() if folds is None else list(folds)
    if len(folds) < 2 or len(set(folds)) < len(folds):
        raise SettingsError(
            f"{run.path}: an ensemble is made of two different trained folds or more, not of "
            f"{', '.join(map(str, folds)) or 'none'}"
        )
    members = [open_fold(run, fold) for fold in sorted(folds)]
    divisions = {member.folds_sha256 for member in members}
    if len(divisions) > 1:
        raise RunError(f"{run.path}: its folds were trained on different divisions of the scans; train them again")
    descriptions = [describe_fold(member) for member in members]
    description = describe_ensemble(descriptions)
    networks = [load_network(member, own) for member, own in zip(members, descriptions, strict=True)]
    with replaced_folder(out) as folder:
        write_saved_model(folder, mean_of(networks), description)
    return description
