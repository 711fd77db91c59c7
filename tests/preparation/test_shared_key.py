"""One file of key and lookup table for several preparations, also at the same time."""

import json
import shutil

import pytest

from doubleunet_bs.errors import DatasetError
from doubleunet_bs.preparation import cohort as module
from doubleunet_bs.preparation.cohort import CohortJob, prepare_cohort
from doubleunet_bs.preparation.shards import open_shards, patients_comparable


def prepare(cohort, key):
    return prepare_cohort(CohortJob(cohort.scans, cohort.labels, cohort.out, key=key))


@pytest.fixture
def breast(cohort):
    return cohort


@pytest.fixture
def prostate(cohort, tmp_path):
    other = type(cohort)(tmp_path / "prostate")
    other.positive("prostate", 7, "PROSTATE-ID")
    return other


def meanwhile(monkeypatch, name, work):
    """Do `work` while the scan `name` is being prepared."""
    prepare_task, results = module.prepare_task, []

    def with_work(task, **others):
        if name in task.path:
            monkeypatch.setattr(module, "prepare_task", prepare_task)
            results.append(work())
        return prepare_task(task, **others)

    monkeypatch.setattr(module, "prepare_task", with_work)
    return results


def test_two_preparations_at_once_keep_each_others_patients(tmp_path, breast, prostate, monkeypatch):
    key = tmp_path / "key.json"
    module.Pseudonyms.new().save(key)
    breast.positive("breast", 2, "BREAST-ID")
    other = meanwhile(monkeypatch, "breast", lambda: prepare(prostate, key))
    results = [prepare(breast, key), *other]
    assert [result.written for result in results] == [True, True]
    table = json.loads(key.read_text())
    assert sorted(table["patients"].values()) == ["BREAST-ID", "PROSTATE-ID"]
    for result in results:
        assert result.records[0].case in table["cases"] and result.records[0].patient in table["patients"]
    assert key.stat().st_mode & 0o777 == 0o600


def test_shards_say_whether_their_patients_can_be_compared(tmp_path, breast, prostate):
    breast.positive("breast", 2, "BREAST-ID")
    for folder, key in ((breast, "one.json"), (prostate, "two.json")):
        assert prepare(folder, tmp_path / key).written
    one, two = open_shards(breast.out), open_shards(prostate.out)
    assert patients_comparable(one, two) is False
    shutil.rmtree(prostate.out)
    assert prepare(prostate, tmp_path / "one.json").written
    assert patients_comparable(one, open_shards(prostate.out)) is True
    assert json.loads((tmp_path / "one.json").read_text())["key"] not in (breast.out / "dataset.json").read_text()
    # Shards that do not know their key, as those made without one.
    content = json.loads((breast.out / "dataset.json").read_text())
    for content["key_mark"], says in ((None, None), (5, "damaged")):
        (breast.out / "dataset.json").write_text(json.dumps(content))
        if says:
            with pytest.raises(DatasetError, match="`key_mark` is damaged"):
                open_shards(breast.out)
        else:
            assert patients_comparable(open_shards(breast.out), two) is None


def test_a_key_that_is_used_meanwhile_outlives_a_preparation_with_problems(tmp_path, breast, prostate, monkeypatch):
    key = tmp_path / "key.json"
    breast.scan("forgotten", 2)
    other = meanwhile(monkeypatch, "forgotten", lambda: prepare(prostate, key))
    assert not prepare(breast, key).written and other[0].written
    assert other[0].records[0].patient in json.loads(key.read_text())["patients"]


def test_a_key_that_is_named_is_made_at_once_and_any_other_only_with_shards(tmp_path, breast):
    key = tmp_path / "key.json"
    breast.scan("forgotten", 2)
    assert not prepare(breast, None).written
    assert not list(breast.root.glob("*.identities.json"))
    assert not prepare(breast, key).written
    made = key.read_text()
    assert not prepare(breast, key).written and key.read_text() == made


def test_two_preparations_that_begin_together_with_a_new_key(tmp_path, breast, prostate, monkeypatch):
    key = tmp_path / "key.json"
    other = meanwhile(monkeypatch, "b", lambda: prepare(prostate, key))
    breast.positive("b", 3)
    assert prepare(breast, key).written and other[0].written
    assert open_shards(breast.out).key_mark == open_shards(prostate.out).key_mark
