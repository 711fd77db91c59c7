"""One file of key and lookup table for several preparations, also at the same time."""

import json

import pytest

from doubleunet_bs.preparation import cohort as module
from doubleunet_bs.preparation.cohort import CohortJob, prepare_cohort


def prepare(cohort, key):
    return prepare_cohort(CohortJob(cohort.scans, cohort.labels, cohort.out, key=key, progress=False))


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

    def with_work(task, *arguments):
        if name in task.path:
            monkeypatch.setattr(module, "prepare_task", prepare_task)
            results.append(work())
        return prepare_task(task, *arguments)

    monkeypatch.setattr(module, "prepare_task", with_work)
    return results


@pytest.mark.parametrize("there", [False, True])
def test_two_preparations_at_once_keep_each_others_patients(tmp_path, breast, prostate, monkeypatch, there):
    key = tmp_path / "key.json"
    if there:
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


def test_a_key_that_is_used_meanwhile_outlives_a_preparation_with_problems(tmp_path, breast, prostate, monkeypatch):
    key = tmp_path / "key.json"
    breast.scan("forgotten", 2)
    other = meanwhile(monkeypatch, "forgotten", lambda: prepare(prostate, key))
    assert not prepare(breast, key).written and other[0].written
    assert other[0].records[0].patient in json.loads(key.read_text())["patients"]


def test_a_new_key_that_nothing_needs_is_removed(tmp_path, breast):
    key = tmp_path / "key.json"
    breast.scan("forgotten", 2)
    assert not prepare(breast, key).written
    assert not key.exists()
    module.Pseudonyms.new().save(key)
    assert not prepare(breast, key).written
    assert key.exists(), "it was there before"
