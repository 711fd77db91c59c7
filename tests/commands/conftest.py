"""What the tests of training commands share: a network of one convolution in place of the Double U-Net."""

import pytest
from intensity_run import intensity_model


@pytest.fixture
def small_network(monkeypatch):
    """Trainings of this test use a network of one convolution: the rest is the same, in a hundredth of the time."""
    monkeypatch.setattr(
        "doubleunet_bs.training.trainer.double_unet", lambda shape, *args, **kwargs: intensity_model(*shape[:2])
    )
