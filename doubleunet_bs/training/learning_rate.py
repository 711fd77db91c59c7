"""The learning rate: lowered when the validation loss no longer falls (the original code's rule), or a cosine."""

import dataclasses
import math


@dataclasses.dataclass
class Plateau:
    """Lowers the learning rate when the validation loss stops improving. Its fields are all its state.

    Attributes:
        factor: what the learning rate is multiplied with.
        patience: epochs without improvement before that happens.
        min_delta: how much lower the loss must be to count as better (Keras' ReduceLROnPlateau: 1e-4).
        best: lowest loss so far.
        wait: epochs since then, or since the last reduction.
    """

    factor: float
    patience: int
    min_delta: float = 1e-4
    best: float = math.inf
    wait: int = 0

    def learning_rate(self, val_loss: float, current: float) -> float:
        """The learning rate of the next epoch, given the validation loss of this one."""
        if val_loss < self.best - self.min_delta:
            self.best, self.wait = val_loss, 0
            return current
        self.wait += 1
        if self.wait < self.patience:
            return current
        self.wait = 0
        return current * self.factor


def cosine(start: float, done: float) -> float:
    """The learning rate after a fraction `done` of all steps, falling from `start` to 0 along half a cosine.

    >>> cosine(1e-3, 0.5)
    0.0005
    """
    return start * 0.5 * (1.0 + math.cos(math.pi * done))
