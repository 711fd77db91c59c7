"""Training as the original code does it, for benchmarks: all in Keras, float32 images, float one-hot targets.

The network's layers and weights are this project's. Loss, targets and step are the plain ones: a loss function over all
pixels, `model.compile` and `model.train_on_batch`.
"""

import keras
import numpy as np
from keras import ops


def focal_tversky(y_true, y_pred):
    """(1 - TI)^0.75 of the classes 1 and 2, as it is usually written; float one-hot targets."""
    y_pred = ops.cast(y_pred, "float32")
    axes = (0, 1, 2)
    tp = ops.sum(y_true * y_pred, axis=axes)
    fp = ops.sum((1.0 - y_true) * y_pred, axis=axes)
    fn = ops.sum(y_true * (1.0 - y_pred), axis=axes)
    index = (tp + 1.0) / (tp + 0.3 * fp + 0.7 * fn + 1.0)
    return ops.mean((1.0 - index[1:]) ** 0.75)


def plain_trainer(model: keras.Model):
    """A function of grey images and labels, uint8 (n, rows, columns): takes a training step, returns the loss."""
    losses = dict.fromkeys(("output1", "output2"), focal_tversky)
    model.compile(optimizer=keras.optimizers.Adam(1e-4), loss=losses, jit_compile=False)

    def step(grey: np.ndarray, labels: np.ndarray) -> float:
        images = np.repeat(grey[..., None].astype(np.float32) / 255.0, 3, axis=-1)
        target = keras.utils.to_categorical(labels, 3).astype(np.float32)
        loss = model.train_on_batch(images, {"output1": target, "output2": target})
        return float(loss[0] if isinstance(loss, (list, tuple)) else loss)

    return step


def torch_trainer(model: keras.Model, precision: str, device: str = "cpu", compiled: bool = False):
    """The same by the PyTorch twin with `torch.optim.Adam` (fused), autocast in a mixed precision, if `compiled` by
    `torch.compile`. float16 has no scaling of the loss: good for its speed, not for training."""
    from torch_twin import torch, twin_of

    twin = twin_of(model).train().to(device)
    optimizer = torch.optim.Adam(twin.parameters(), lr=1e-4, eps=1e-7, fused=True)
    autocast = getattr(torch, precision.removeprefix("mixed_"))

    def loss_of(grey, target):
        image = (grey[:, None].float() / 255.0).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device, autocast, enabled=precision != "float32"):
            outputs = twin(image)
        loss = 0.0
        for output in outputs:
            for index in (1, 2):
                y, p = (target == index).float(), output[:, index]
                tp, fp, fn = (y * p).sum(), ((1 - y) * p).sum(), (y * (1 - p)).sum()
                loss = loss + 0.5 * (1 - (tp + 1) / (tp + 0.3 * fp + 0.7 * fn + 1)) ** 0.75
        return loss

    forward = torch.compile(loss_of, dynamic=False) if compiled else loss_of

    def step(grey: np.ndarray, labels: np.ndarray) -> float:
        loss = forward(torch.from_numpy(grey).to(device), torch.from_numpy(labels).to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step
