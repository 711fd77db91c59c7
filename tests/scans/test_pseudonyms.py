"""Pseudonyms: keyed, stable, and kept in a file that only its owner can read."""

import hashlib
import hmac
import json
import multiprocessing
import os
import pickle
import stat

import pytest

from doubleunet_bs.errors import BoneScanError
from doubleunet_bs.scans import Pseudonyms
from doubleunet_bs.scans.pseudonyms import load_file_table, save_file_table

KEY = bytes(range(32))


def test_a_pseudonym_is_the_beginning_of_a_keyed_hash():
    expected = hmac.new(KEY, b"patient\x00Jane", hashlib.sha256).hexdigest()[:12]
    assert Pseudonyms(KEY).patient("Jane") == f"patient-{expected}"
    assert Pseudonyms(KEY).case("Jane") != f"case-{expected}"
    assert Pseudonyms(bytes(32)).patient("Jane") != f"patient-{expected}"


def test_order_does_not_matter_and_everything_is_remembered():
    one, two = Pseudonyms(KEY), Pseudonyms(KEY)
    names = ["a", "b", "c"]
    forward = [one.case(name) for name in names]
    assert [two.case(name) for name in reversed(names)] == forward[::-1]
    assert one.cases == two.cases == dict(zip(forward, names, strict=True))


@pytest.mark.skipif(os.name != "posix", reason="file modes are a matter of POSIX systems")
def test_the_file_is_for_its_owner_alone(tmp_path):
    path = tmp_path / "keys" / "pseudonyms.json"
    pseudonyms = Pseudonyms.new()
    case, patient = pseudonyms.case("1.2.3"), pseudonyms.patient("Jäne")
    pseudonyms.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
    again = Pseudonyms.load(path)
    assert again.cases == {case: "1.2.3"} and again.patients == {patient: "Jäne"}
    assert again.case("9") == pseudonyms.case("9")
    for mode in (0o640, 0o604, 0o620):
        path.chmod(mode)
        with pytest.raises(BoneScanError, match="others may read"):
            Pseudonyms.load(path)


def test_a_new_key_each_time():
    assert Pseudonyms.new().case("x") != Pseudonyms.new().case("x")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("key"), lambda content: content.update(format="other"),
        lambda content: content.update(key="00"), lambda content: content.update(key="no hex"),
        lambda content: content.update(cases={"case-000000000000": "1.2.3"}), lambda content: content.update(cases=3),
        lambda content: content.update(patients={"patient-0": None}),
        lambda content: content.update(files={"case-000000000000": ["a.dcm"]}), lambda content: content.update(files=3),
        lambda content: content.update(files={case: [3] for case in content["cases"]}),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused(tmp_path, change):
    path = tmp_path / "pseudonyms.json"
    pseudonyms = Pseudonyms(KEY)
    pseudonyms.case("1.2.3")
    pseudonyms.save(path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(BoneScanError, match="not a pseudonym file") as caught:
        Pseudonyms.load(path)
    assert "1.2.3" not in str(caught.value) and KEY.hex() not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_what_is_no_json_is_refused(tmp_path, text):
    path = tmp_path / "pseudonyms.json"
    path.write_bytes(text.encode("latin-1"))
    path.chmod(0o600)
    with pytest.raises(BoneScanError):
        Pseudonyms.load(path)
    with pytest.raises(BoneScanError):
        Pseudonyms.load(tmp_path / "nothing")


def test_tables_of_workers_are_merged():
    parent, worker = Pseudonyms(KEY), pickle.loads(pickle.dumps(Pseudonyms(KEY)))
    case = worker.case("1.2.3")
    parent.merge(worker)
    assert parent.cases == {case: "1.2.3"}
    with pytest.raises(BoneScanError, match="different keys"):
        parent.merge(Pseudonyms(bytes(32)))


def test_neither_key_nor_names_show_in_a_log():
    pseudonyms = Pseudonyms(KEY)
    pseudonyms.patient("Jane")
    assert "Jane" not in repr(pseudonyms) and repr(KEY) not in repr(pseudonyms)


def test_bad_arguments():
    for key in (b"short", "text" * 8, None):
        with pytest.raises(BoneScanError):
            Pseudonyms(key)
    for identifier in ("", None, 3):
        with pytest.raises(BoneScanError):
            Pseudonyms(KEY).case(identifier)


def test_an_unwritable_place_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BoneScanError, match="cannot be written"):
        Pseudonyms(KEY).save(tmp_path / "file" / "pseudonyms.json")


def test_saving_adds_to_what_others_have_saved(tmp_path):
    path = tmp_path / "pseudonyms.json"
    one = Pseudonyms.open(path)
    assert not path.exists()
    one.save(path)
    two = Pseudonyms.open(path)
    cases = {one.case("1.2.3"): "1.2.3", two.case("4.5.6"): "4.5.6"}
    one.save(path)
    two.save(path)
    assert Pseudonyms.load(path).cases == cases and two.cases != cases
    before = path.read_bytes()
    with pytest.raises(BoneScanError, match="holds another key"):
        Pseudonyms.new().save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def _save_many(path, number):
    for index in range(20):
        pseudonyms = Pseudonyms.open(path)
        pseudonyms.case(f"{number}.{index}")
        pseudonyms.save(path)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="the lock is one of POSIX systems")
def test_many_processes_save_at_once(tmp_path):
    path = tmp_path / "pseudonyms.json"
    Pseudonyms.new().save(path)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_save_many, args=(path, number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    expected = {f"{number}.{index}" for number in range(3) for index in range(20)}
    assert set(Pseudonyms.load(path).cases.values()) == expected and list(tmp_path.iterdir()) == [path]


def test_the_file_leads_back_to_paths(tmp_path):
    path = tmp_path / "pseudonyms.json"
    one, two = Pseudonyms(KEY), Pseudonyms(KEY)
    for pseudonyms, name in ((one, "a.dcm"), (two, "b\udcff.dcm")):
        pseudonyms.files[pseudonyms.case(name[0])] = (f"/export/{name}",)
        pseudonyms.save(path)
    assert sorted(Pseudonyms.load(path).files.values()) == [("/export/a.dcm",), ("/export/b\\udcff.dcm",)]
    assert Pseudonyms.load(path).cases.keys() == (one.cases | two.cases).keys()


def test_processes_that_begin_together_have_one_key(tmp_path):
    path = tmp_path / "new" / "pseudonyms.json"
    assert Pseudonyms.open(path).key_mark != Pseudonyms.open(path).key_mark and not path.exists()
    assert Pseudonyms.open(path, create=True).key_mark == Pseudonyms.open(path, create=True).key_mark


def test_the_table_of_files_keeps_other_cases_and_is_for_its_owner_alone(tmp_path):
    path = tmp_path / "shards.files.csv"
    save_file_table(path, {"case-1": ("/a/x, y.dcm",), "case-2": ("/a/ant.dcm", "/a/post\udcff.dcm")})
    save_file_table(path, {"case-1": ('/b/"x".dcm',)})
    assert path.read_text() == 'case,path\ncase-1,"/b/""x"".dcm"\ncase-2,/a/ant.dcm\ncase-2,/a/post\\udcff.dcm\n'
    assert load_file_table(path) == {"case-1": ('/b/"x".dcm',), "case-2": ("/a/ant.dcm", "/a/post\\udcff.dcm")}
    assert os.name != "posix" or stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("scan,patient\nx,y\n")
    with pytest.raises(BoneScanError, match="not a readable table of files"):
        save_file_table(path, {})
