"""The Double U-Net in PyTorch, for benchmarks alone: the same layers, filled with the weights of the Keras model.

`twin_of(model)` gives the module. `bench_predict.py` compares its outputs with Keras' before it measures anything.
Images are (n, 3, rows, columns), best in the memory format channels_last, which PyTorch's kernels want.
"""

from measuring import needed

torch = needed("torch", "pip install torch")

nn, functional = torch.nn, torch.nn.functional

VGG = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))
DECODER = (256, 128, 64, 32)
ENCODER2 = (32, 64, 128, 256)


class ConvNormRelu(nn.Module):
    """Convolution, batch normalisation with Keras' epsilon and momentum, ReLU."""

    def __init__(self, before: int, filters: int, kernel: int = 3, dilation: int = 1, bias: bool = True):
        super().__init__()
        # In numbers: ONNX Runtime knows no "same" with dilation.
        padding = dilation * (kernel - 1) // 2
        self.conv = nn.Conv2d(before, filters, kernel, padding=padding, dilation=dilation, bias=bias)
        self.norm = nn.BatchNorm2d(filters, eps=1e-3, momentum=0.01)

    def forward(self, x):
        return functional.relu(self.norm(self.conv(x)), inplace=True)


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.reduce = nn.Linear(channels, channels // 8, bias=False)
        self.expand = nn.Linear(channels // 8, channels, bias=False)

    def forward(self, x):
        gate = torch.sigmoid(self.expand(functional.relu(self.reduce(x.mean((2, 3))))))
        return x * gate[:, :, None, None]


class ConvBlock(nn.Module):
    def __init__(self, before: int, filters: int):
        super().__init__()
        self.conv1, self.conv2 = ConvNormRelu(before, filters), ConvNormRelu(filters, filters)
        self.se = SqueezeExcite(filters)

    def forward(self, x):
        return self.se(self.conv2(self.conv1(x)))


class Pyramid(nn.Module):
    """ASPP: image pooling, 1 x 1, and 3 x 3 at dilation 6, 12 and 18."""

    def __init__(self, before: int, filters: int = 64):
        super().__init__()
        self.pool = ConvNormRelu(before, filters, 1)
        self.conv1 = ConvNormRelu(before, filters, 1, bias=False)
        for rate in (6, 12, 18):
            setattr(self, f"rate{rate}", ConvNormRelu(before, filters, 3, rate, bias=False))
        self.project = ConvNormRelu(5 * filters, filters, 1, bias=False)

    def forward(self, x):
        pooled = self.pool(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        branches = (pooled, self.conv1(x), self.rate6(x), self.rate12(x), self.rate18(x))
        return self.project(torch.cat(branches, 1))


class Decoder(nn.Module):
    def __init__(self, before: int, skips: tuple[int, ...], classes: int):
        super().__init__()
        widths = (before, *DECODER[:-1])
        self.levels = nn.ModuleList(
            ConvBlock(width + skip, filters) for width, skip, filters in zip(widths, skips, DECODER, strict=True)
        )
        self.logits = nn.Conv2d(DECODER[-1], classes, 1)

    def forward(self, x, skips):
        for level, others in zip(self.levels, skips, strict=True):
            x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = level(torch.cat((x, *others), 1))
        return torch.softmax(self.logits(x).float(), 1)


class DoubleUNet(nn.Module):
    """Images (n, 3, rows, columns) -> output 1 and output 2, (n, classes, rows, columns) float32 probabilities."""

    def __init__(self, classes: int = 3):
        super().__init__()
        before, self.vgg = 3, nn.ModuleList()
        for count, filters in VGG:
            self.vgg.append(
                nn.ModuleList(nn.Conv2d(before if k == 0 else filters, filters, 3, padding=1) for k in range(count))
            )
            before = filters
        self.aspp1, self.aspp2 = Pyramid(512), Pyramid(ENCODER2[-1])
        self.decoder1 = Decoder(64, (512, 256, 128, 64), classes)
        widths = (3 * classes, *ENCODER2[:-1])
        self.encoder2 = nn.ModuleList(
            ConvBlock(width, filters) for width, filters in zip(widths, ENCODER2, strict=True)
        )
        self.decoder2 = Decoder(64, (512 + 256, 256 + 128, 128 + 64, 64 + 32), classes)

    def forward(self, image):
        x, skips1 = image, []
        for place, block in enumerate(self.vgg):
            if place:
                skips1.insert(0, x)
                x = functional.max_pool2d(x, 2)
            for conv in block:
                x = functional.relu(conv(x), inplace=True)
        output1 = self.decoder1(self.aspp1(x), [(skip,) for skip in skips1])
        # Class by class, the channels of the image within.
        x = (output1[:, :, None] * image[:, None]).flatten(1, 2)
        x, skips2 = x.contiguous(memory_format=torch.channels_last), []
        for block in self.encoder2:
            x = block(x)
            skips2.insert(0, x)
            x = functional.max_pool2d(x, 2)
        return output1, self.decoder2(self.aspp2(x), list(zip(skips1, skips2, strict=True)))


def twin_of(model) -> DoubleUNet:
    """The module with the weights of a Keras `double_unet`, in memory format channels_last and evaluation mode.

    Raises:
        KeyError, RuntimeError: the Keras model has other layers or shapes.
    """
    twin = DoubleUNet(model.get_layer("output2_logits").filters)
    with torch.no_grad():
        for name, module in _pairs(twin):
            _copy(module, [torch.from_numpy(array) for array in model.get_layer(name).get_weights()])
    copied = sum(parameter.numel() for parameter in twin.parameters())
    own = sum(array.size for array in model.get_weights()) - 2 * sum(
        layer.moving_mean.shape[0] for layer in model.layers if hasattr(layer, "moving_mean")
    )
    if copied != own:
        raise RuntimeError(f"the twin has {copied} parameters, Keras' model {own}")
    return twin.eval().to(memory_format=torch.channels_last)


def _pairs(twin: DoubleUNet):
    """(name of the Keras layer, module that has its weights)."""
    for place, block in enumerate(twin.vgg, start=1):
        for number, conv in enumerate(block, start=1):
            yield f"block{place}_conv{number}", conv
    for name in ("aspp1", "aspp2"):
        pyramid = getattr(twin, name)
        for branch in ("pool", "conv1", "rate6", "rate12", "rate18", "project"):
            yield f"{name}_{branch}_conv" if branch == "pool" else f"{name}_{branch}", getattr(pyramid, branch).conv
            yield f"{name}_{branch}_bn", getattr(pyramid, branch).norm
    for name, levels in (
        ("decoder1", twin.decoder1.levels),
        ("encoder2", twin.encoder2),
        ("decoder2", twin.decoder2.levels),
    ):
        for number, level in enumerate(levels, start=1):
            for step in (1, 2):
                part = getattr(level, f"conv{step}")
                yield f"{name}_level{number}_conv{step}", part.conv
                yield f"{name}_level{number}_conv{step}_bn", part.norm
            yield f"{name}_level{number}_se_reduce", level.se.reduce
            yield f"{name}_level{number}_se_expand", level.se.expand
    yield "output1_logits", twin.decoder1.logits
    yield "output2_logits", twin.decoder2.logits


def _copy(module: nn.Module, arrays) -> None:
    if isinstance(module, nn.Linear):
        module.weight.copy_(arrays[0].T)
    elif isinstance(module, nn.Conv2d):
        module.weight.copy_(arrays[0].permute(3, 2, 0, 1))
        if module.bias is not None:
            module.bias.copy_(arrays[1])
    else:
        targets = (module.weight, module.bias, module.running_mean, module.running_var)
        for target, array in zip(targets, arrays, strict=True):
            target.copy_(array)
