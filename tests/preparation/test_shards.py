"""Shard folders: there and back, and everything that can be wrong with one."""

import dataclasses
import json
import os
import shutil
import zipfile

import numpy as np
import pytest
from bodies import person, scan_of
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from doubleunet_bs.dicom_files.header_values import is_phantom
from doubleunet_bs.errors import BoneScanError, DatasetError
from doubleunet_bs.preparation import PreparationSettings, prepare_scan, shards
from doubleunet_bs.preparation.records import count_cohort, make_record, parse_record
from doubleunet_bs.preparation.shards import open_shards

SETTINGS = PreparationSettings(bin=4)


@pytest.fixture(scope="module")
def cases():
    prepared = [prepare_scan(scan_of(person(n), person(n + 10)), settings=SETTINGS) for n in range(3)]
    return [dataclasses.replace(case, case=f"case-{n:012x}") for n, case in enumerate(prepared)]


@pytest.fixture(scope="module")
def good(tmp_path_factory, cases):
    folder = tmp_path_factory.mktemp("shards") / "good"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "CASES_PER_SHARD", 2)
        writer = shards.ShardWriter(folder, SETTINGS)
        for number, case in enumerate(cases):
            record = make_record(case, f"patient-{number:012x}", "negative", "breast", f"{number:064x}")
            writer.add(record, case.counts, case.labels)
        writer.finish()
    return folder


@pytest.fixture
def copy(good, tmp_path):
    return shutil.copytree(good, tmp_path / "copy")


def edit(folder, change):
    path = folder / "dataset.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_there_and_back(good, cases):
    dataset = open_shards(good, verify=True)
    assert len(dataset) == 3 and dataset.image_shape == (160, 128) and dataset.settings == SETTINGS
    assert [(case.shard, case.row) for case in dataset.cases] == [(0, 0), (0, 1), (1, 0)]
    for index, case in enumerate(cases):
        np.testing.assert_array_equal(dataset.counts(index), case.counts)
        np.testing.assert_array_equal(dataset.labels(index), case.labels)
        np.testing.assert_array_equal(dataset.grey(index), case.grey)
        record = dataset.cases[index]
        assert record.gains == case.gains and record.placements == case.placements
        assert record.bodies == case.bodies and record.brightness == case.brightness
        assert parse_record(json.loads(json.dumps(record.to_json()))) == record


def test_files_are_plain_numpy_of_the_format_s_types(good):
    counts = np.load(good / "counts-00000.npy", allow_pickle=False)
    assert counts.dtype == np.uint16 and counts.shape == (2, 160, 128)
    assert np.load(good / "labels-00001.npy", allow_pickle=False).shape == (1, 160, 128)


def test_mapped_arrays_cannot_be_written(good):
    with pytest.raises(ValueError):
        open_shards(good).counts(0)[0, 0] = 1


def test_the_fingerprint_follows_the_content(good, copy):
    assert open_shards(copy).fingerprint == open_shards(good).fingerprint
    edit(copy, lambda content: content["cases"][0].update(gains=[2.0, 2.0]))
    assert open_shards(copy).fingerprint != open_shards(good).fingerprint


def test_verify_sees_a_changed_count(copy):
    path = copy / "counts-00000.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    open_shards(copy)
    with pytest.raises(DatasetError, match="counts-00000.npy"):
        open_shards(copy, verify=True)


WRONG = {
    "another version": lambda c: c.update(version=2),
    "another format": lambda c: c.update(format="x"),
    "no settings": lambda c: c.pop("settings"),
    "a wrong setting": lambda c: c["settings"].update(bin=3),
    "an unknown setting": lambda c: c["settings"].update(more=1),
    "settings of another shape": lambda c: c["settings"].update(bin=1),
    "no shards": lambda c: c.update(shards=[]),
    "no cases": lambda c: c.update(shards=[], cases=[]),
    "a shard too long": lambda c: c["shards"][0].update(cases=3),
    "a case less": lambda c: c["cases"].pop(),
    "a case twice": lambda c: c["cases"][1].update(case=c["cases"][0]["case"]),
    "cases in another order": lambda c: c["cases"].reverse(),
    "an infinite gain": lambda c: c["cases"][0].update(gains=[float("inf"), 1.0]),
    "a gain that is no number": lambda c: c["cases"][0].update(gains=[float("nan"), 1.0]),
    "a gain of zero": lambda c: c["cases"][0].update(gains=[0.0, 1.0]),
    "a gain beyond float32": lambda c: c["cases"][0].update(gains=[0.1, 0.1]),
    "a gain that is a word": lambda c: c["cases"][0].update(gains=["1", "1"]),
    "an entry missing": lambda c: c["cases"][0].pop("placements"),
    "a placement of one view": lambda c: c["cases"][0]["placements"].pop("anterior"),
    "another group": lambda c: c["cases"][0].update(group="normal"),
    "a hash too short": lambda c: c["cases"][0].update(pixel_sha256="12"),
    **{
        f"the name {name!r} of a {kind}": lambda c, kind=kind, name=name: c["cases"][0].update({kind: name})
        for kind in ("case", "patient")
        for name in (
            f"../../../../victim/{kind}-1",
            f"{kind}-../../victim/holiday",
            f"{kind}-1/x",
            f"{kind}-1\\x",
            f"{kind}-1.x",
            f"{kind}-1\n",
            f"/{kind}-1",
            f"{kind}-",
            f"{kind}-1\0",
            f"{kind}-ä",
            f"{kind}-1_labels",
            "holiday",
            "",
            3,
            f"{kind}-" + 65 * "a",
        )
    },
    "a list for an object": lambda c: c["cases"].__setitem__(0, []),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_damaged_description_is_one_clear_error(copy, wrong):
    edit(copy, WRONG[wrong])
    with pytest.raises(DatasetError) as caught:
        open_shards(copy)
    assert "dataset.json" in str(caught.value) and "\n" not in str(caught.value)


def test_missing_cut_and_foreign_files_are_errors(copy, tmp_path):
    with pytest.raises(DatasetError, match="not a shard folder"):
        open_shards(tmp_path / "nothing")
    path = copy / "labels-00001.npy"
    whole = path.read_bytes()
    for content in (whole[:-1], whole[:50], b"", whole + b"x", b"x" * len(whole)):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match="labels-00001.npy"):
            open_shards(copy)
    np.save(path, np.zeros((1, 160, 128), np.int64))
    with pytest.raises(DatasetError, match="int64"):
        open_shards(copy)
    np.save(path, np.zeros((1, 128, 160), np.uint8))
    with pytest.raises(DatasetError, match="128, 160"):
        open_shards(copy)
    np.save(path, np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(DatasetError, match="labels-00001.npy"):
        open_shards(copy)
    path.unlink()
    with pytest.raises(DatasetError, match="missing"):
        open_shards(copy)


@pytest.mark.parametrize("name", ["dataset.json", "counts-00000.npy", "labels-00001.npy"])
def test_training_data_behind_a_link_opens(copy, good, name):
    """The folder or large files of it may lie on another disk."""
    (copy / name).unlink()
    (copy / name).symlink_to(good / name)
    (copy.parent / "link").symlink_to(copy)
    for path in (copy, copy.parent / "link"):
        assert len(open_shards(path, verify=True)) == 3


def test_a_description_of_any_size_is_not_read(copy):
    os.truncate(copy / "dataset.json", shards.LARGEST_DESCRIPTION + 1)
    with pytest.raises(DatasetError, match="larger than 64 MB"):
        open_shards(copy)


def test_arrays_of_another_shape_or_type_are_refused(tmp_path):
    path = tmp_path / "x.npz"
    array = np.arange(6, dtype="<u2").reshape(2, 3)
    np.savez_compressed(path, a=array, b=np.zeros((2, 3), bool))
    promised = {"a": ((2, 3), np.dtype("<u2"))}
    np.testing.assert_array_equal(shards.load_arrays(path, promised)["a"], array)
    for wrong in ({"a": ((3, 2), np.dtype("<u2"))}, {"a": ((2, 3), np.dtype("<i2"))}, {"c": ((2, 3), np.dtype("<u2"))}):
        with pytest.raises(ValueError):
            shards.load_arrays(path, wrong)
    whole = path.read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"no array")
    with pytest.raises(ValueError):
        shards.load_arrays(path, promised)
    for content in (b"", whole[:60], whole[:-30]):
        path.write_bytes(content)
        with pytest.raises(ValueError):
            shards.load_arrays(path, promised)


def test_a_description_with_an_endless_number_or_endless_depth_is_an_error(copy):
    for text in ('{"version": ' + "1" * 5000 + "}", "[" * 100_000, "\ud800".encode("utf-8", "surrogatepass"), b"\xff"):
        (copy / "dataset.json").write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(DatasetError):
            open_shards(copy)


@pytest.fixture(scope="module")
def fuzzed(good, tmp_path_factory):
    return shutil.copytree(good, tmp_path_factory.mktemp("fuzz") / "shards")


@given(
    name=st.sampled_from(["dataset.json", "counts-00000.npy", "labels-00001.npy"]),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4),
    head=st.booleans(),
)
# Python's tokenizer, to which NumPy hands the header, has an error of its own.
@example(name="counts-00000.npy", changes=[(0.078125, 0)], head=True)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_changed_bytes_give_an_error_of_ours_or_a_data_set(good, fuzzed, name, changes, head):
    data = bytearray((good / name).read_bytes())
    # The first 128 bytes of a .npy file are its header: that is where changes matter.
    reach = 128 if head and name.endswith(".npy") else len(data)
    for place, value in changes:
        data[min(int(place * reach), reach - 1)] = value
    (fuzzed / name).write_bytes(data)
    try:
        dataset = open_shards(fuzzed)
    except BoneScanError as error:
        assert "\n" not in str(error)
    else:
        assert all(dataset.grey(index).shape == dataset.image_shape for index in range(len(dataset)))
    finally:
        (fuzzed / name).write_bytes((good / name).read_bytes())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.slow
@given(data=st.data(), value=json_values)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_in_any_place_gives_an_error_of_ours_or_a_data_set(good, fuzzed, data, value):
    content = json.loads((good / "dataset.json").read_text())
    place, key = content, data.draw(st.sampled_from(sorted(content)))
    while isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else list(range(len(place)))))
    place[key] = value
    (fuzzed / "dataset.json").write_text(json.dumps(content))
    try:
        open_shards(fuzzed)
    except BoneScanError as error:
        assert "\n" not in str(error)
    finally:
        shutil.copy(good / "dataset.json", fuzzed)


def test_patients_are_counted_once_with_the_cancer_that_any_of_their_scans_states(cases):
    who = (("a", "positive", None), ("a", "negative", "breast"), ("b", "positive", None), ("c", "positive", "prostate"))
    records = [make_record(cases[0], patient, group, cancer, "") for patient, group, cancer in who]
    cancers = {"breast": 1, "not stated": 1, "prostate": 1}
    assert count_cohort(records) == {"patients": 3, "scans": 4, "normal_scans": 1, "cancers": cancers}


def test_shards_say_which_cases_are_phantoms(cohort):
    cohort.positive("phantom", 1)
    dataset = cohort.dataset(2)
    dataset.ManufacturerModelName, dataset.ImageComments = "Discovery NM/CT 670", ""
    dataset.save_as(cohort.scans / "patient.dcm", enforce_file_format=True)
    cohort.declare("patient,,breast,no")
    assert cohort.prepare(settings=PreparationSettings(bin=4)).written
    found = {case.group: case.phantom for case in open_shards(cohort.out).cases}
    assert found == {"positive": True, "negative": False}

    path = cohort.out / "dataset.json"
    content = json.loads(path.read_text())
    content["cases"][0]["phantom"] = "yes"
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="impossible entry: phantom"):
        open_shards(cohort.out)
    del content["cases"][0]["phantom"]
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"unknown entries \(phantom\): prepare the scans again"):
        open_shards(cohort.out)


@pytest.mark.parametrize(
    ("model", "comments", "expected"),
    [
        ("Discovery NM/CT 670 (SYNTHETIC PHANTOM)", None, True),
        ("Discovery", "SYNTHETIC PHANTOM. Not a patient.", True),
        ("Discovery", "no synthetic phantom", False),
        (None, None, False),
    ],
)
def test_the_mark_is_in_the_model_name_or_begins_the_comments(model, comments, expected):
    dataset = Dataset()
    if model is not None:
        dataset.ManufacturerModelName = model
    if comments is not None:
        dataset.ImageComments = comments
    assert is_phantom(dataset) is expected
