"""A data set of more shards than are mapped at a time."""

import json
import os

import numpy as np
import pytest
from bodies import person, scan_of

from doubleunet_bs.errors import DatasetError
from doubleunet_bs.preparation import PreparationSettings, prepare_scan, shards
from doubleunet_bs.preparation.records import make_record
from doubleunet_bs.preparation.shards import open_shards

SHARDS = 7
SETTINGS = PreparationSettings(bin=4)


@pytest.fixture
def many(tmp_path, monkeypatch):
    """One case in each of seven shards, all different; two files of each kind are mapped at a time."""
    monkeypatch.setattr(shards, "CASES_PER_SHARD", 1)
    monkeypatch.setattr(shards, "MAPPED_FILES", 2)
    case = prepare_scan(scan_of(person(1), person(2)), settings=SETTINGS)
    writer = shards.ShardWriter(tmp_path, SETTINGS)
    for number in range(SHARDS):
        record = make_record(case, f"patient-{number}", "negative", None, f"{number:064x}")
        counts = case.counts.copy()
        counts[0, 0] = number
        writer.add(record, counts, case.labels)
    writer.finish()
    description = tmp_path / "dataset.json"
    content = json.loads(description.read_text())
    for number, entry in enumerate(content["cases"]):
        entry["case"] = f"case-{number}"
    description.write_text(json.dumps(content))
    return tmp_path


def open_files(folder):
    handles = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    return sum(os.path.exists(handle) and os.readlink(handle).startswith(str(folder)) for handle in handles)


def test_every_case_is_read_and_few_files_are_open(many):
    dataset = open_shards(many, verify=True)
    first = dataset.counts(0)
    for index in np.random.default_rng(0).integers(0, SHARDS, 40):
        assert dataset.counts(index)[0, 0] == index and not dataset.counts(index).flags.writeable
        assert dataset.labels(index).shape == dataset.image_shape
    assert first[0, 0] == 0, "an array that was handed out stays"
    if os.path.isdir("/proc/self/fd"):
        assert open_files(many) <= 5


def test_a_file_that_is_replaced_is_not_taken_for_the_one_that_was_opened(many):
    dataset = open_shards(many)
    path = many / "counts-00006.npy"
    copy = path.read_bytes()
    path.unlink()
    with pytest.raises(DatasetError, match="counts-00006.npy: missing"):
        dataset.counts(6)
    path.write_bytes(copy)
    with pytest.raises(DatasetError, match="counts-00006.npy: .*changed since it was opened"):
        dataset.counts(6)
    # What was mapped at opening is what was opened, whatever becomes of the name.
    (many / "counts-00000.npy").unlink()
    assert dataset.counts(0)[0, 0] == 0
