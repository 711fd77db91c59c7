"""VGG19 ImageNet weights for the encoder, loaded layer by layer so that a wrong file is named (paper, section 2.9)."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import keras

from doubleunet_bs.errors import RunError
from doubleunet_bs.files import replace_file

URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/vgg19/"
    "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
_NAME = URL.rsplit("/", 1)[1]
MD5 = "253f8cb515780f3b799900260a226db6"
CONV_LAYERS = tuple(
    f"block{block}_conv{conv}" for block, count in enumerate((2, 2, 4, 4, 4), start=1) for conv in range(1, count + 1)
)


_CHANNELS = (3, 64, 64, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512, 512, 512, 512, 512)
_SHAPES = {
    name: ((3, 3, before, after), (after,))
    for name, before, after in zip(CONV_LAYERS, _CHANNELS[:-1], _CHANNELS[1:], strict=True)
}


def load_encoder_weights(vgg: keras.Model, source: str | os.PathLike | None) -> None:
    """Fill the 16 convolutions of a VGG19 without top.

    Args:
        vgg: a model that has the layers block1_conv1 ... block5_conv4.
        source: None or "none": a random start, He-normal (decided here). Keras' own for these layers, Glorot, halves the
            variance at each of the 16 ReLU layers: the bottleneck starts with a standard deviation of 1e-4, far below
            what the epsilon of the batch normalisation behind it lets through. "imagenet": the file that Keras itself downloads, or its copy in
            Keras' cache. Anything else: the path of such a file.

    Raises:
        RunError: the download failed (and what to do then), or the file is not that layout. Nothing is loaded in part.
    """
    if source is None or str(source) == "none":
        for name in CONV_LAYERS:
            kernel = vgg.get_layer(name).kernel
            kernel.assign(keras.initializers.HeNormal()(kernel.shape))
        return
    for name, weights in read_encoder_weights(source).items():
        vgg.get_layer(name).set_weights(weights)


def read_encoder_weights(source: str | os.PathLike | None) -> dict[str, list]:
    """The checked weights of "imagenet" or of a file as {layer name: [kernel, bias]}; empty for None and "none".

    To be called before anything is written: a missing network or a wrong file shows here.

    Raises:
        RunError: see `load_encoder_weights`.
    """
    if source is None or str(source) == "none":
        return {}
    path = _download() if str(source) == "imagenet" else Path(source)
    weights = _read(path)
    for name, expected in _SHAPES.items():
        found = tuple(array.shape for array in weights[name])
        if found != expected:
            raise RunError(
                f"{path}: layer {name} has the shapes {found}, VGG19 has {expected}; "
                "this is not the VGG19 no-top file of Keras"
            )
    return weights


def known_source(source: str) -> str:
    """ "imagenet" when `source` is a copy of the file that Keras downloads, which is then put into Keras' cache; else itself.

    So a run that is given a copy, for want of a network, is the same as one that downloads, and either continues the other.
    """
    path = Path(source)
    if source in ("none", "imagenet") or not path.is_file() or not _is_the_file(path):
        return source
    cached = _cache() / _NAME
    if not _is_the_file(cached):
        replace_file(cached, lambda temporary: shutil.copyfile(path, temporary))
    return "imagenet"


def _download() -> Path:
    """The file in Keras' cache, downloaded when it is not there or damaged.

    Several processes may do so at once. Keras writes a download to its final place, and removes or cuts there what another
    process has just finished: each downloads into a folder of its own and puts the whole, checked file in its place.
    """
    try:
        cached = _cache() / _NAME
        if not _is_the_file(cached):
            with tempfile.TemporaryDirectory(prefix=".download-", dir=cached.parent) as own:
                file = keras.utils.get_file(_NAME, URL, cache_dir=own, cache_subdir="", file_hash=MD5)
                os.replace(file, cached)
        return cached
    # get_file raises bare Exception for every network failure, and ValueError for a bad hash.
    except Exception as cause:
        raise RunError(
            "the ImageNet weights of VGG19 could not be downloaded "
            f"({' '.join(str(cause).split())}). Fetch {URL} on a machine with a network and give it with "
            "--encoder-weights FILE, or start from random weights with --encoder-weights none"
        ) from None


def _cache() -> Path:
    """Where Keras keeps such files, as its documentation has it: KERAS_HOME or ~/.keras; beside temporary files if need be."""
    home = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
    for folder in (home / "models", Path(tempfile.gettempdir()) / ".keras" / "models"):
        # A cache that is only to be read, of an image say, will do when the file is in it.
        if _is_the_file(folder / _NAME):
            return folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise RunError(f"{home}: the weights cannot be kept there; name another folder with the variable KERAS_HOME")


def _is_the_file(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest() == MD5
    except OSError:
        return False


def _read(path: Path) -> dict:
    """Read {layer name: [kernel, bias]} from an HDF5 file of the Keras 1/2 weights layout."""
    import h5py

    if not path.is_file():
        raise RunError(f"{path}: no such file of encoder weights (imagenet and none are the other choices)")
    try:
        with h5py.File(path, "r") as file:
            root = file["model_weights"] if "model_weights" in file else file
            missing = [name for name in CONV_LAYERS if name not in root]
            if missing:
                raise RunError(f"{path}: layer {missing[0]} is missing; this is not the VGG19 no-top file of Keras")
            weights = {}
            for name in CONV_LAYERS:
                arrays = [root[name][_text(key)][()] for key in root[name].attrs["weight_names"]]
                weights[name] = sorted(arrays, key=lambda array: -array.ndim)  # kernel before bias
            return weights
    except (OSError, KeyError, TypeError, AttributeError) as cause:
        raise RunError(f"{path}: not an HDF5 file of Keras weights ({cause})") from None


def _text(value) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
