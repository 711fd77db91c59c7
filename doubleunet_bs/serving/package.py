"""A model repository for TensorFlow Serving: versions with warm-up requests, and the server's configuration."""

import dataclasses
import os
import re
import shutil
from pathlib import Path

import numpy as np

from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.files import new_folder, read_json, write_text
from doubleunet_bs.inference.endpoints import (
    ENDPOINT,
    INPUT,
    PAPERS_ENDPOINT,
    PAPERS_INPUT,
    RAW_ENDPOINT,
    RAW_INPUT,
    has_raw_counts,
)
from doubleunet_bs.inference.model_description import DESCRIPTION, ModelDescription
from doubleunet_bs.inference.model_folder import find_model
from doubleunet_bs.inference.serving_client import predict_request, warmup_record
from doubleunet_bs.preparation.case import prepare_scan
from doubleunet_bs.preparation.settings import PreparationSettings

WARMUP = Path("assets.extra") / "tf_serving_warmup_requests"
BATCH_SIZES = (1, 2, 4)
"""What the server computes at once; a batch of another size is filled up to the next of these."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")

BATCHING = f"""\
# Scans of different clients are computed together: up to {BATCH_SIZES[-1]}, or what has come within 10 ms.
# A request with more than {BATCH_SIZES[-1]} scans is refused (INVALID_ARGUMENT): a client sends them in several.
max_batch_size {{ value: {BATCH_SIZES[-1]} }}
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
        name: of the model on the server.
        version: 1 or more.
        warmups: number of warm-up requests in it.
        description: the model's papers.
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
        out: the repository; made when it is not there.
        name: letters, digits, ".", "_" and "-"; None: `description.served_name`.
        mounted_at: the repository's path on the server.

    Raises:
        SettingsError: an impossible name, or a repository path that is a file.
        RunError: no model, or one exported by an older version and away from its run.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise SettingsError(f"{out}: is a file; --out names a folder")
    if name is not None and not _NAME.match(name):
        raise SettingsError(
            f"name {name!r}: letters, digits, '.', '_' and '-' are possible, beginning with one of the first"
        )
    description, saved_model = _exported(Path(model))
    name = name or description.served_name
    records = warmup_records(name, description)
    folder = out / name
    version = max(_versions(folder), default=0) + 1
    with new_folder(folder / str(version)) as new:
        shutil.copytree(saved_model, new, dirs_exist_ok=True)
        _write_records(new / WARMUP, records)
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
        if _NAME.match(folder.name) and folder.is_dir() and _versions(folder)
    ]
    return f"model_config_list {{\n{''.join(entries)}}}\n"


def warmup_records(name: str, description: ModelDescription) -> list[bytes]:
    """Requests of every batch size to every endpoint, made of phantoms; each a serialised PredictionLog."""
    counts = warmup_counts()
    requests = [predict_request(name, PAPERS_ENDPOINT, {PAPERS_INPUT: np.zeros(1, np.uint8)})]
    grey = np.stack([_grey(pair, description.preparation) for pair in counts])
    raw = has_raw_counts(description.image_shape, description.preparation)
    if not raw:
        grey = np.zeros((len(counts), *description.image_shape), np.uint8)
    for size in BATCH_SIZES:
        requests.append(predict_request(name, ENDPOINT, {INPUT: grey[:size]}))
        if raw:
            requests.append(predict_request(name, RAW_ENDPOINT, {RAW_INPUT: counts[:size]}))
    return [warmup_record(request) for request in requests]


def warmup_counts() -> np.ndarray:
    """Four phantoms: (4, 2, 1024, 256) uint16."""
    from doubleunet_bs.phantom import make_phantom

    scans = [make_phantom(0, index) for index in range(BATCH_SIZES[-1])]
    return np.stack([np.stack([scan.anterior, scan.posterior]) for scan in scans])


def _grey(counts: np.ndarray, settings: PreparationSettings) -> np.ndarray:
    from doubleunet_bs.scans.bone_scan import BoneScan

    return prepare_scan(BoneScan(counts[0], counts[1], None, "phantom"), settings=settings).grey


def _exported(path: Path) -> tuple[ModelDescription, Path]:
    found = find_model(path)
    if found.saved_model and "endpoints" in read_json(found.saved_model / DESCRIPTION, RunError, "model description"):
        return found.description, found.saved_model
    if not found.trained:
        raise RunError(f"{path}: exported by an older version of this package; package the fold in its run instead")
    from doubleunet_bs.tensorflow_setup import import_tensorflow

    import_tensorflow()
    from doubleunet_bs.serving.export import export_fold

    return found.description, export_fold(found.trained.run, found.trained.fold)


def _versions(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return [int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()]


def _write_records(path: Path, records: list[bytes]) -> None:
    from doubleunet_bs.tensorflow_setup import import_tensorflow

    tensorflow = import_tensorflow()
    path.parent.mkdir(exist_ok=True)
    with tensorflow.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
