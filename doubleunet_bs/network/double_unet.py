"""The Double U-Net of Jha et al. (2020) with the multi-class heads of the paper (section 2.9, Figure 3).

Network 1: VGG19 encoder -> ASPP -> decoder -> output 1. Its class maps are multiplied with the input image and feed
network 2: own encoder -> ASPP -> decoder with the skips of both encoders -> output 2. Output 2 is the segmentation.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import h5py
import keras

from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.imagenet_file import published_file
from doubleunet_bs.network.layers import (
    Normalisation,
    aspp,
    class_head,
    conv_block,
    multiply_by_classes,
    upsample_concat,
)

CONV_LAYERS = tuple(
    f"block{block}_conv{conv}" for block, count in enumerate((2, 2, 4, 4, 4), start=1) for conv in range(1, count + 1)
)
VGG_SKIPS = ("block1_conv2", "block2_conv2", "block3_conv4", "block4_conv4")
VGG_BOTTLENECK = "block5_conv4"
DECODER_FILTERS = (256, 128, 64, 32)
ENCODER2_FILTERS = (32, 64, 128, 256)
ASPP_FILTERS = 64


def prior_head_bias(pixels_per_class: Sequence[int], classes: int) -> list[float]:
    """Starting biases that make an untrained head predict the class frequencies.

    Args:
        pixels_per_class: number of training pixels of air, non-metastatic and metastatic.
        classes: 3 for softmax heads: the logarithms of the frequencies; 1 for sigmoid heads: the logit of the
            metastatic frequency.

    Returns:
        One number per class. A class without a pixel counts as one pixel, which keeps the logarithm finite.

    Example:
        >>> [round(bias, 2) for bias in prior_head_bias([800, 190, 10], classes=3)]
        [-0.22, -1.66, -4.61]
    """
    counts = [max(int(count), 1) for count in pixels_per_class]
    if classes == 1:
        return [math.log(counts[-1] / sum(counts[:-1]))]
    return [math.log(count / sum(counts)) for count in counts]


def double_unet(
    input_shape: Sequence[int] = (640, 512, 3),
    classes: int = 3,
    encoder_weights: str | os.PathLike | None = None,
    head_bias: Sequence[float] | None = None,
    synchronized: bool = False,
    bn_momentum: float = 0.99,
) -> keras.Model:
    """Build the Double U-Net as a functional Keras model.

    Args:
        input_shape: (rows, columns, 3). Rows and columns must be divisible by 16, since both encoders halve four times,
            and at least 32, which Keras' VGG19 asks for.
            The input is float, the grey image divided by 255 and repeated three times (VGG19 takes RGB).
        classes: 3 for air, non-metastatic, metastatic with softmax heads; 1 for the original network with sigmoid
            heads.
        encoder_weights: None or "none" for random weights, "imagenet" for the file Keras downloads, or the path of a
            file of that layout. The encoder is trainable in any case.
        head_bias: numbers from which the biases of both heads start, one per class; see `prior_head_bias`. None: zeros,
            as in the original code.
        synchronized: batch normalisation over all replicas. Needed as soon as there is more than one, and then
            TensorFlow is the only backend that can.
        bn_momentum: momentum of the moving averages of batch normalisation. A run of fewer than some hundred steps
            needs a smaller one than the original's 0.99, else the averages still hold much of their starting values.

    Returns:
        A `keras.Model` named "double_unet". With several classes its outputs are a dict of "output1" and "output2",
        each (batch, rows, columns, classes) float32 probabilities that sum to one. With one class the output is one
        tensor (batch, rows, columns, 2), output 1 and output 2 concatenated as in the original.

    Raises:
        SettingsError: a shape that is not divisible by 16, not three channels, or a wrong number of classes.
        RunError: encoder weights that cannot be downloaded or read.

    Example:
        >>> model = double_unet((640, 512, 3), classes=3)
        >>> model.count_params()
        29299430

    Reference:
        Jha et al., DoubleU-Net, CBMS 2020; Chen et al. 2023, section 2.9.
    """
    rows, columns, channels = _checked_shape(input_shape)
    if classes < 1 or classes == 2:
        raise SettingsError(f"{classes} classes: use 1 (sigmoid heads) or at least 3 (softmax heads)")
    if head_bias is not None and len(head_bias) != classes:
        raise SettingsError(f"{len(head_bias)} starting biases for {classes} classes: give one for each class")

    norm = Normalisation(bn_momentum, synchronized)
    image = keras.Input((rows, columns, channels), name="image")

    vgg = vgg19_encoder(image, encoder_weights)
    vgg_skips = [vgg.get_layer(name).output for name in VGG_SKIPS]
    x = aspp(vgg.get_layer(VGG_BOTTLENECK).output, ASPP_FILTERS, "aspp1", norm)
    for level, filters in enumerate(DECODER_FILTERS, start=1):
        name = f"decoder1_level{level}"
        x = upsample_concat(x, [vgg_skips[-level]], name)
        x = conv_block(x, filters, name, norm)
    output1 = class_head(x, classes, "output1")

    x = multiply_by_classes(image, output1, "image_times_classes")

    skips2 = []
    for level, filters in enumerate(ENCODER2_FILTERS, start=1):
        name = f"encoder2_level{level}"
        x = conv_block(x, filters, name, norm)
        skips2.append(x)
        x = keras.layers.MaxPooling2D(2, name=f"{name}_pool")(x)
    x = aspp(x, ASPP_FILTERS, "aspp2", norm)
    for level, filters in enumerate(DECODER_FILTERS, start=1):
        name = f"decoder2_level{level}"
        x = upsample_concat(x, [vgg_skips[-level], skips2[-level]], name)
        x = conv_block(x, filters, name, norm)
    output2 = class_head(x, classes, "output2")

    if classes == 1:
        outputs = keras.layers.Concatenate(name="outputs", dtype=output1.dtype)([output1, output2])
    else:
        outputs = {"output1": output1, "output2": output2}
    model = keras.Model(image, outputs, name="double_unet")
    if head_bias is not None:
        # Assigned and not an initialiser of our own: the saved .keras file opens without this package.
        for name in ("output1_logits", "output2_logits"):
            model.get_layer(name).bias.assign([float(value) for value in head_bias])
    return model


def _checked_shape(input_shape: Sequence[int]) -> tuple[int, int, int]:
    if len(input_shape) != 3:
        raise SettingsError(f"input shape {tuple(input_shape)}: give (rows, columns, 3)")
    rows, columns, channels = (int(value or 0) for value in input_shape)
    if channels != 3:
        raise SettingsError(f"{channels} input channels: repeat the grey image three times for the VGG19 encoder")
    if rows < 32 or columns < 32 or rows % 16 or columns % 16:
        raise SettingsError(
            f"input of {rows} x {columns} pixels: crop or pad it until both are divisible by 16 and at least 32"
        )
    return rows, columns, channels


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
