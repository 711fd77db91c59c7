"""A model repository for TensorFlow Serving: versions with warm-up requests, and the server's configuration.

The extra `serving` brings the messages of the warm-up requests.
"""

import dataclasses
import os
import re
import shutil
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.files import new_folder, read_json, write_text
from doubleunet_bs.inference.endpoints import (
    DESCRIPTION_ENDPOINT,
    DESCRIPTION_INPUT,
    ENDPOINT,
    INPUT,
    RAW_ENDPOINT,
    RAW_INPUT,
    has_raw_counts,
)
from doubleunet_bs.inference.engine_serving import LARGEST_BATCH, predict_request
from doubleunet_bs.inference.model_description import DESCRIPTION, ModelDescription
from doubleunet_bs.inference.model_folder import find_model
from doubleunet_bs.phantom import make_phantom
from doubleunet_bs.preparation.case import prepare_scan
from doubleunet_bs.scans.bone_scan import BoneScan
from doubleunet_bs.serving.export import export_fold

WARMUP = Path("assets.extra") / "tf_serving_warmup_requests"
BATCH_SIZES = (1, 2, LARGEST_BATCH)
"""Numbers of scans the server computes at once; a batch of another size is filled up to the next of these."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

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


@dataclasses.dataclass(frozen=True)
class Package:
    """A packaged model.

    Attributes:
        path: the folder of the version.
        name: the model's name on the server.
        version: 1 or more.
        warmups: number of warm-up requests in it.
        description: the model's metadata.
    """

    path: Path
    name: str
    version: int
    warmups: int
    description: ModelDescription


def package_model(
    model: str | os.PathLike, out: str | os.PathLike, name: str | None = None, mounted_at: str = "/models"
) -> Package:
    """Add a version of a model to a repository.

    A version appears whole or not at all, since a running server looks for new ones at any time. A fold without an
    export, or with one of other weights or of an older version of this package, is exported first.

    Args:
        model: a fold in its run, or an exported model.
        out: the repository; created if missing.
        name: letters, digits, ".", "_" and "-"; None: `description.served_name`.
        mounted_at: the repository's path on the server.

    Raises:
        SettingsError: an impossible name, or a repository path that is a file.
        RunError: no model, or one exported by an older version and away from its run.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise SettingsError(f"{out}: is a file: give a folder with --out")
    if name is not None and not _NAME.fullmatch(name):
        raise SettingsError(f"name {name!r}: use letters, digits, '.', '_' and '-', a letter or digit first")
    description, saved_model = _exported(Path(model))
    name = name or description.served_name
    records = [
        prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
        for request in warmup_requests(name, description)
    ]
    folder = out / name
    version = max(_versions(folder), default=0) + 1
    with new_folder(folder / str(version)) as new:
        shutil.copytree(saved_model, new, dirs_exist_ok=True)
        _write_records(new / WARMUP, [record.SerializeToString() for record in records])
    write_text(out / "batching_parameters.txt", BATCHING)
    write_text(out / "monitoring.config", MONITORING)
    write_text(out / "models.config", models_config(out, mounted_at))
    return Package(folder / str(version), name, version, len(records), description)


def models_config(repository: Path, mounted_at: str) -> str:
    """The server's list of models: every folder of `repository` with a version in it."""
    entries = [
        f'  config {{\n    name: "{folder.name}"\n    base_path: "{mounted_at.rstrip("/")}/{folder.name}"\n'
        '    model_platform: "tensorflow"\n  }\n'
        for folder in sorted(repository.iterdir())
        if _NAME.fullmatch(folder.name) and folder.is_dir() and _versions(folder)
    ]
    return f"model_config_list {{\n{''.join(entries)}}}\n"


def warmup_requests(name: str, description: ModelDescription) -> list[predict_pb2.PredictRequest]:
    """Requests of every batch size to every endpoint of the model `name`, made of phantoms."""
    phantoms = [make_phantom(0, index) for index in range(LARGEST_BATCH)]
    counts = np.stack([np.stack([phantom.anterior, phantom.posterior]) for phantom in phantoms])
    raw = has_raw_counts(description.image_shape, description.preparation)
    if raw:
        scans = [BoneScan(anterior, posterior, None, "phantom") for anterior, posterior in counts]
        grey = np.stack([prepare_scan(scan, settings=description.preparation).grey for scan in scans])
    else:
        grey = np.zeros((LARGEST_BATCH, *description.image_shape), np.uint8)
    requests = [predict_request(name, DESCRIPTION_ENDPOINT, {DESCRIPTION_INPUT: np.zeros(1, np.uint8)})]
    for size in BATCH_SIZES:
        requests.append(predict_request(name, ENDPOINT, {INPUT: grey[:size]}))
        if raw:
            requests.append(predict_request(name, RAW_ENDPOINT, {RAW_INPUT: counts[:size]}))
    return requests


def _exported(path: Path) -> tuple[ModelDescription, Path]:
    """The description and the SavedModel of a model folder, exported again where its export is missing or older."""
    found = find_model(path)
    if found.saved_model and "endpoints" in read_json(found.saved_model / DESCRIPTION, RunError, "model description"):
        return found.description, found.saved_model
    if not found.trained:
        raise RunError(f"{path}: exported by an older version of this package: package the fold in its run instead")
    return found.description, export_fold(found.trained.run, found.trained.fold)


def _versions(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return [int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()]


def _write_records(path: Path, records: list[bytes]) -> None:
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
