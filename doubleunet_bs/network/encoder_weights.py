"""The VGG19 encoder and where its weights start: ImageNet, a file, or random (paper, section 2.9)."""

import os
from pathlib import Path

import h5py
import keras

from doubleunet_bs.errors import RunError
from doubleunet_bs.imagenet_file import published_file

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
    path = published_file() if str(source) == "imagenet" else Path(source)
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
    """Find out before anything is written that weights cannot be downloaded or read (`RunError`)."""
    if source is not None and str(source) != "none":
        vgg19_encoder(keras.Input((32, 32, 3)), source)
