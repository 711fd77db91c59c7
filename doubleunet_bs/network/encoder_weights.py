"""VGG19 ImageNet weights for the encoder, loaded layer by layer so that a wrong file is named (paper, section 2.9)."""

import os
from pathlib import Path

import keras

from doubleunet_bs.errors import RunError

URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/vgg19/"
    "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
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


def _download() -> Path:
    try:
        return Path(keras.utils.get_file(URL.rsplit("/", 1)[1], URL, cache_subdir="models", file_hash=MD5))
    # get_file raises bare Exception for every network failure, and ValueError for a bad hash.
    except Exception as cause:
        raise RunError(
            "the ImageNet weights of VGG19 could not be downloaded "
            f"({' '.join(str(cause).split())}). Fetch {URL} on a machine with a network and give it with "
            "--encoder-weights FILE, or start from random weights with --encoder-weights none"
        ) from None


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
