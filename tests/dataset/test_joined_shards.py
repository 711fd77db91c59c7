"""Several shard folders as one data set."""

import numpy as np
import pytest
from intensity_run import SETTINGS, make_shards

from doubleunet_bs.dataset.joined_shards import JoinedShards, open_all_shards, parts_of
from doubleunet_bs.errors import DatasetError, SettingsError
from doubleunet_bs.files import read_json, write_json
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.preparation.shards import open_shards, patients_comparable


@pytest.fixture
def two(tmp_path):
    return [make_shards(tmp_path / name, first=first, key_mark="key") for name, first in (("a", 0), ("b", 100))]


def test_every_case_keeps_its_images(two):
    joined, parts = open_all_shards(two), [open_shards(path) for path in two]
    assert isinstance(joined, JoinedShards) and len(joined) == 14 and joined.settings == SETTINGS
    assert {part.path for part in parts_of(joined)} == set(two)
    assert "a + " in str(joined.path) or "b + " in str(joined.path)
    for part in parts:
        for index, case in enumerate(part.cases):
            place = [one.case for one in joined.cases].index(case.case)
            assert joined.cases[place].patient == case.patient
            for name in ("counts", "labels", "grey"):
                np.testing.assert_array_equal(getattr(joined, name)(place), getattr(part, name)(index))


def test_the_order_of_the_folders_does_not_matter_and_their_content_does(two, tmp_path):
    joined = open_all_shards(two)
    turned = open_all_shards(two[::-1])
    assert joined.fingerprint == turned.fingerprint and joined.cases == turned.cases
    other = make_shards(tmp_path / "c", first=200, key_mark="key")
    assert open_all_shards([two[0], other]).fingerprint != joined.fingerprint
    alone = open_all_shards(two[:1])
    assert alone.fingerprint == open_shards(two[0]).fingerprint and parts_of(alone) == (alone,)


def test_a_scan_twice_is_refused(two, tmp_path):
    with pytest.raises(SettingsError, match="the same shards twice"):
        open_all_shards([two[0], two[0]])
    overlapping = make_shards(tmp_path / "c", first=103, key_mark="key")
    with pytest.raises(DatasetError, match="case-.* is of the same case as case-.* in .*: leave one out"):
        open_all_shards([two[1], overlapping])
    # The same counts under another name, as with another key.
    content = read_json(overlapping / "dataset.json")
    for record in content["cases"]:
        record["case"] = record["case"].replace("case-0", "case-f")
    write_json(overlapping / "dataset.json", content)
    with pytest.raises(DatasetError, match="is of the same scan as"):
        open_all_shards([two[1], overlapping])


def test_other_settings_are_named(two, tmp_path):
    fine = make_shards(tmp_path / "fine", first=200, settings=PreparationSettings(bin=2), key_mark="key")
    with pytest.raises(DatasetError, match=r"fine: prepared with other settings than .*a \(bin 2 there, 4 here\)"):
        open_all_shards([two[0], fine])


def test_other_keys_need_a_confirmation(two, tmp_path):
    other = make_shards(tmp_path / "c", first=200, key_mark="another")
    with pytest.raises(DatasetError, match="c: prepared with another key than .*--assume-disjoint-patients"):
        open_all_shards([two[0], other])
    joined = open_all_shards([two[0], other], other_patients=True)
    # Its pseudonyms can be compared with no others, not even with those of a part.
    assert [patients_comparable(joined, open_shards(path)) for path in (two[0], other)] == [False, False]
    assert patients_comparable(open_all_shards(two), open_shards(two[0])) is True
    unknown = make_shards(tmp_path / "d", first=300)
    assert open_all_shards([two[0], unknown]).key_mark is None
