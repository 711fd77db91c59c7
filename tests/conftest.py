"""What every test needs: TensorFlow without its start-up chatter, and small shards in memory."""

import pytest
from synthetic_shards import SyntheticShards

from doubleunet_bs.quiet import import_tensorflow


@pytest.fixture(scope="session")
def tensorflow():
    return import_tensorflow()


@pytest.fixture
def synthetic_shards():
    """32 x 32 images with square lesions, quacking like `preparation.shards.ShardedDataset`."""
    return SyntheticShards()
