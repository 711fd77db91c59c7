"""The VGG19 encoder and where its weights start: ImageNet, a file, or random (paper, section 2.9)."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import h5py
import keras

from doubleunet_bs.errors import RunError
from doubleunet_bs.files import replace_file

URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/vgg19/"
    "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
MD5 = "253f8cb515780f3b799900260a226db6"
CONV_LAYERS = tuple(
    f"block{block}_conv{conv}" for block, count in enumerate((2, 2, 4, 4, 4), start=1) for conv in range(1, count + 1)
)


def vgg19_encoder(image: keras.KerasTensor, source: str | os.PathLike | None) -> keras.Model:
    """VGG19 without its classifier.

    Args:
        image: (batch, rows, columns, 3) Keras input.
        source: "imagenet" for the file that Keras publishes, from Keras' cache or downloaded; the path of such a file;
            None or "none" for a random start. The random start is He-normal: the Glorot of Keras halves the variance at
            each of the 16 ReLU layers, and the bottleneck would start with a standard deviation of 1e-4.

    Raises:
        RunError: the download failed, or the file has another layout.
    """
    if source is None or str(source) == "none":
        vgg = keras.applications.VGG19(include_top=False, weights=None, input_tensor=image)
        for name in CONV_LAYERS:
            kernel = vgg.get_layer(name).kernel
            kernel.assign(keras.initializers.HeNormal()(kernel.shape))
        return vgg
    path = _published_file() if str(source) == "imagenet" else Path(source)
    if not path.is_file():
        raise RunError(f"{path}: no such file: give --encoder-weights imagenet, none, or another file")
    try:
        with h5py.File(path, "r") as file:
            layers = set(file.get("model_weights", file))
        missing = [name for name in CONV_LAYERS if name not in layers]
        if missing:
            raise ValueError(f"layer {missing[0]} is missing")
        return keras.applications.VGG19(include_top=False, weights=path, input_tensor=image)
    except (OSError, ValueError, KeyError) as cause:
        raise RunError(f"{path}: not the VGG19 no-top file of Keras ({cause})") from None


def check_encoder_weights(source: str | os.PathLike | None) -> None:
    """Find out before anything is written that weights cannot be downloaded or read.

    Raises:
        RunError: see `vgg19_encoder`.
    """
    if source is not None and str(source) != "none":
        vgg19_encoder(keras.Input((32, 32, 3)), source)


def known_source(source: str) -> str:
    """ "imagenet" for a copy of the published file, which then goes into Keras' cache; other sources as they are.

    So a run that gets a copy, where there is no network, equals one that downloads, and each continues the other.
    """
    path = Path(source)
    if source in ("none", "imagenet") or not _is_published(path):
        return source
    cached = _cached()
    if not _is_published(cached):
        try:
            cached.parent.mkdir(parents=True, exist_ok=True)
            replace_file(cached, lambda temporary: shutil.copyfile(path, temporary))
        except OSError as cause:
            raise RunError(f"{cached}: cannot be written ({cause}): set KERAS_HOME to a writable folder") from None
    return "imagenet"


def _published_file() -> Path:
    """The file in Keras' cache, downloaded when it is not there or damaged.

    Each process downloads into a folder of its own and moves the whole, checked file to its place: Keras itself would
    write to the final place, and cut there what another process has just finished.
    """
    cached = _cached()
    if _is_published(cached):
        return cached
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=cached.parent) as own:
            file = keras.utils.get_file(cached.name, URL, cache_dir=own, cache_subdir="", file_hash=MD5)
            os.replace(file, cached)
    except Exception as cause:
        # Keras raises a bare Exception for a failure of the network, and ValueError for a bad hash.
        if type(cause) is not Exception and not isinstance(cause, OSError | ValueError):
            raise
        raise RunError(
            f"the ImageNet weights could not be downloaded ({' '.join(str(cause).split())}): "
            f"fetch {URL} elsewhere and use "
            "--encoder-weights FILE, or --encoder-weights none for a random start"
        ) from None
    return cached


def _cached() -> Path:
    """Where Keras keeps the file: in KERAS_HOME, by default ~/.keras."""
    return Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "models" / URL.rsplit("/", 1)[1]


def _is_published(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest() == MD5
    except OSError:
        return False
