"""The ImageNet weights of VGG19 that Keras publishes: found in Keras' cache, copied into it, or downloaded.

Keras is not imported, so that a command can look before it imports TensorFlow.
"""

import hashlib
import os
import shutil
import urllib.request
from http.client import HTTPException
from pathlib import Path

from tqdm import tqdm

from doubleunet_bs.errors import RunError
from doubleunet_bs.files import replace_file

URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/vgg19/"
    "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
MD5 = "253f8cb515780f3b799900260a226db6"
TIMEOUT_SECONDS = 30.0
"""Without an answer, or without a further byte."""


def known_source(source: str) -> str:
    """ "imagenet" for a copy of the published file, which then goes into Keras' cache; other sources as they are.

    So a run that gets a copy, where there is no network, equals one that downloads, and each continues the other.
    `RunError`: there is no such file, or the cache cannot be written.
    """
    path = Path(source)
    if source in ("none", "imagenet"):
        return source
    if not path.is_file():
        raise RunError(f"{path}: no such file: give --encoder-weights imagenet, none, or another file")
    if not _is_published(path):
        return source
    cached = _cached()
    if not _is_published(cached):
        try:
            cached.parent.mkdir(parents=True, exist_ok=True)
            replace_file(cached, lambda temporary: shutil.copyfile(path, temporary))
        except OSError as cause:
            raise RunError(f"{cached}: cannot be written ({cause}): set KERAS_HOME to a writable folder") from None
    return "imagenet"


def published_file() -> Path:
    """The file in Keras' cache, downloaded when it is not there or damaged. It appears whole or not at all."""
    cached = _cached()
    if not _is_published(cached):
        try:
            replace_file(cached, _download)
        except (OSError, HTTPException, ValueError) as cause:
            reason = getattr(cause, "reason", None) or cause
            raise RunError(
                f"ImageNet weights not downloaded ({reason}): "
                f"fetch {URL} elsewhere and give --encoder-weights FILE, or none"
            ) from None
    return cached


def _download(path: Path) -> None:
    with urllib.request.urlopen(URL, timeout=TIMEOUT_SECONDS) as answer, open(path, "wb") as file:
        size = int(answer.headers.get("Content-Length") or 0) or None
        # None: only on a terminal.
        with tqdm(total=size, desc="ImageNet weights", unit="B", unit_scale=True, disable=None) as bar:
            while part := answer.read(1 << 20):
                file.write(part)
                bar.update(len(part))
    if not _is_published(path):
        raise ValueError("cut off, or not the published file")


def _cached() -> Path:
    """Where Keras keeps the file: in KERAS_HOME, by default ~/.keras."""
    return Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "models" / URL.rsplit("/", 1)[1]


def _is_published(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest() == MD5
    except OSError:
        return False
