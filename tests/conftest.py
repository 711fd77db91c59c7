"""What every test needs: TensorFlow without its start-up chatter, small shards in memory, and notes at the end."""

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


def pytest_collection_modifyitems(items):
    """Files with slow tests first, so that no process is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_terminal_summary(terminalreporter):
    """What tests noted by `record_property("note", text)`: figures and what stood in for what."""
    reports = terminalreporter.getreports("passed")
    notes = [text for report in reports for name, text in report.user_properties if name == "note"]
    if notes:
        terminalreporter.section("notes")
    for text in dict.fromkeys(notes):
        terminalreporter.line(text)
