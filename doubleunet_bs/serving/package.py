"""A model repository for TensorFlow Serving: versions with warm-up requests, and the server's configuration.

The extra `serving` brings the messages of the warm-up requests.
"""

import dataclasses
import importlib.resources
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from doubleunet_bs.constants import RAW_SHAPE
from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.files import create_file, new_folder, write_text
from doubleunet_bs.findings.skeleton_result import check_same_preparation
from doubleunet_bs.inference.engine_serving import LARGEST_BATCH, predict_request
from doubleunet_bs.inference.engines import (
    DESCRIPTION_ENDPOINT,
    DESCRIPTION_INPUT,
    ENDPOINT,
    INPUT,
    RAW_ENDPOINT,
    RAW_INPUT,
    has_raw_counts,
)
from doubleunet_bs.inference.model_description import DESCRIPTION, NAME, ModelDescription, describe_saved_model
from doubleunet_bs.inference.model_folder import find_model
from doubleunet_bs.inference.saved_model_check import GRAPH, check_files, check_graph
from doubleunet_bs.preparation.case import prepare_scan
from doubleunet_bs.scans.bone_scan import BoneScan
from doubleunet_bs.serving.export import export_fold
from doubleunet_bs.serving.model_card import write_model_card

COMPOSE = "compose.yaml"
WARMUP = Path("assets.extra") / "tf_serving_warmup_requests"
BATCH_SIZES = (1, 2, LARGEST_BATCH)
"""Numbers of scans the server computes at once; a batch of another size is filled up to the next of these."""

BATCHING = f"""\
# Scans of different clients are computed together: up to {LARGEST_BATCH}, or what has come within 10 ms.
# A request with more than {LARGEST_BATCH} scans is refused (INVALID_ARGUMENT): a client sends them in several.
max_batch_size {{ value: {LARGEST_BATCH} }}
batch_timeout_micros {{ value: 10000 }}
# A full queue is UNAVAILABLE, which clients take as a reason to try again.
max_enqueued_batches {{ value: 100 }}
num_batch_threads {{ value: 2 }}
{chr(10).join(f"allowed_batch_sizes: {size}" for size in BATCH_SIZES)}
"""
MONITORING = """\
prometheus_config {
  enable: true
  path: "/monitoring/prometheus/metrics"
}
"""


_CONFIG_HEADER = """\
# Which models and versions are served. serve-package adds models and keeps what you change.
# Only the highest version of a model is served, unless a model_version_policy says otherwise.
"""


@dataclasses.dataclass(frozen=True)
class Package:
    """A packaged model.

    Attributes:
        path: the folder of the version.
        name: the model's name on the server.
        version: 1 or more.
        warmups: number of warm-up requests in it; 0 where the version was there already.
        description: the model's metadata.
    """

    path: Path
    name: str
    version: int
    warmups: int
    description: ModelDescription


def package_models(
    models: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    name: str | None = None,
    mounted_at: str = "/models",
    force: bool = False,
) -> list[Package]:
    """`package_model` of one model, or of one of lesions and one of the skeleton for the same scans.

    Raises:
        SettingsError: other models than these, or one name for two.
        RunError: the two are prepared differently, or see `package_model`. Then none is packaged.
    """
    if len(models) > 1:
        described = [find_model(Path(model)).description for model in models]
        ordered = sorted(described, key=lambda one: one.is_skeleton)
        if [one.is_skeleton for one in ordered] != [False, True]:
            raise SettingsError("several models: name one of lesions and one of the skeleton, others one by one")
        if name is not None:
            raise SettingsError("--name is for one model: leave it out")
        check_same_preparation(*ordered)
        for model, one in zip(models, described, strict=True):
            if not force:
                one.check_quality(model, "train it further")
    return [package_model(model, out, name, mounted_at, force) for model in models]


def package_model(
    model: str | os.PathLike,
    out: str | os.PathLike,
    name: str | None = None,
    mounted_at: str = "/models",
    force: bool = False,
) -> Package:
    """Add a version of a model to a repository.

    A version appears whole or not at all, since a running server looks for new ones at any time. A fold without an
    export of its present weights is exported first. Where the highest version holds these weights already, nothing is
    added.

    Args:
        model: a fold in its run, or an exported model.
        out: the repository; created if missing. Configuration files that are there are kept.
        name: letters, digits, ".", "_" and "-"; None: `description.served_name`.
        mounted_at: the repository's path on the server.
        force: package a model that found nothing on its own validation scans, and weights that are there already.

    Raises:
        SettingsError: an impossible name, or a repository path that is a file.
        RunError: no model, one that needs `force`, or that is damaged or foreign.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise SettingsError(f"{out}: is a file: give a folder with --out")
    if name is not None and not NAME.fullmatch(name):
        raise SettingsError(f"name {name!r}: use letters, digits, '.', '_' and '-', a letter or digit first")
    if not mounted_at.startswith("/") and "://" not in mounted_at:
        raise SettingsError(f"--mounted-at {mounted_at}: TensorFlow Serving needs an absolute path, or a URL")
    found = find_model(Path(model))
    description, run = found.description, found.trained.run if found.trained else None
    if not force:
        description.check_quality(model, "train it further")
    saved_model = found.saved_model
    if saved_model:
        check_files(saved_model)
        check_graph(saved_model / GRAPH)
    else:
        assert found.trained is not None
        saved_model = export_fold(found.trained.run, found.trained.fold)
    name = name or description.served_name
    folder = out / name
    versions = _versions(folder)
    version, records = max(versions, default=0), []
    if force or not versions or not _holds(folder / str(version), description):
        version += 1
        records = [
            prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            for request in warmup_requests(name, description)
        ]
        with new_folder(folder / str(version)) as new:
            shutil.copytree(saved_model, new, dirs_exist_ok=True)
            if run:  # The fold may have been evaluated since its export.
                write_model_card(new, description, run)
            _write_records(new / WARMUP, [record.SerializeToString() for record in records])
    _write_configuration(out, mounted_at)
    return Package(folder / str(version), name, version, len(records), description)


def warmup_requests(name: str, description: ModelDescription) -> list[predict_pb2.PredictRequest]:
    """Requests of every batch size to every endpoint of the model `name`, made of a box that passes for a body."""
    counts = np.zeros((LARGEST_BATCH, 2, *RAW_SHAPE), np.uint16)
    counts[:, :, 60:980, 70:190] = 8  # A body,
    counts[:, :, 300:330, 120:150] = 600  # and a hot spot in it.
    raw = has_raw_counts(description.image_shape, description.preparation)
    if raw:
        scans = [BoneScan(anterior, posterior, None, "warm-up") for anterior, posterior in counts]
        grey = np.stack([prepare_scan(scan, settings=description.preparation).grey for scan in scans])
    else:
        grey = np.zeros((LARGEST_BATCH, *description.image_shape), np.uint8)
    requests = [predict_request(name, DESCRIPTION_ENDPOINT, {DESCRIPTION_INPUT: np.zeros(1, np.uint8)})]
    for size in BATCH_SIZES:
        requests.append(predict_request(name, ENDPOINT, {INPUT: grey[:size]}))
        if raw:
            requests.append(predict_request(name, RAW_ENDPOINT, {RAW_INPUT: counts[:size]}))
    return requests


def models_config(repository: Path, mounted_at: str, earlier: str = "") -> str:
    """The server's list of models: every folder of `repository` with a version in it.

    Args:
        repository: the folder.
        mounted_at: its path on the server.
        earlier: the list so far. Version policies, labels and models from elsewhere in it are kept; models of this
            repository whose folder is gone are dropped.

    Raises:
        google.protobuf.text_format.ParseError: `earlier` is not such a list.
    """
    there = {path.name for path in repository.iterdir() if NAME.fullmatch(path.name) and _versions(path)}
    old = text_format.Parse(earlier, ModelServerConfig()).model_config_list.config
    paths = {name: f"{mounted_at.rstrip('/')}/{name}" for name in there}
    known = {one.name: one for one in old if one.name in there or Path(one.base_path).parent != Path(mounted_at)}
    config = ModelServerConfig()
    for name in sorted(there | known.keys()):
        one = config.model_config_list.config.add(name=name, model_platform="tensorflow")
        one.MergeFrom(known.get(name, one))
        one.base_path = paths.get(name, one.base_path)
    return _CONFIG_HEADER + text_format.MessageToString(config)


def _write_configuration(out: Path, mounted_at: str) -> None:
    """Write the files beside the models. Those that are there are the user's; only the list of models is extended."""
    compose = importlib.resources.files("doubleunet_bs.serving").joinpath(COMPOSE).read_text("utf-8")
    for name, text in ((COMPOSE, compose), ("batching_parameters.txt", BATCHING), ("monitoring.config", MONITORING)):
        create_file(out / name, text)
    path = out / "models.config"
    earlier = path.read_text("utf-8", errors="replace") if path.exists() else ""
    try:
        text = models_config(out, mounted_at, earlier)
    except text_format.ParseError as cause:
        raise RunError(f"{path}: not a list of models ({cause}): correct or remove it") from None
    if text != earlier:
        write_text(path, text)


def _holds(folder: Path, description: ModelDescription) -> bool:
    """Whether a version has these weights, exported by this version of the package."""
    if not (folder / DESCRIPTION).is_file():
        return False
    there = describe_saved_model(folder)
    return (there.weights_sha256, there.version) == (description.weights_sha256, description.version)


def _versions(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return [int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()]


def _write_records(path: Path, records: list[bytes]) -> None:
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
