"""The ImageNet weights of VGG19 that Keras publishes: found in Keras' cache, or downloaded."""

import hashlib
import os
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


def published_file() -> Path:
    """The file in Keras' cache, downloaded when it is not there or damaged. It appears whole or not at all."""
    cached = _cached()
    if not _is_published(cached):
        try:
            replace_file(cached, _download)
        except (OSError, HTTPException, ValueError) as cause:
            reason = getattr(cause, "reason", None) or cause
            raise RunError(
                f"ImageNet weights not downloaded ({reason}): fetch {URL} elsewhere and put it at {cached}, "
                "or use --encoder-weights none"
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
