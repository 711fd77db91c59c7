"""`doubleunet-bs prepare` as a user meets it: what is printed, where, and with which exit code."""

import json

import pytest

from doubleunet_bs.__main__ import main
from doubleunet_bs.phantom import make_cohort
from doubleunet_bs.preparation.shards import open_shards


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = make_cohort(tmp_path_factory.mktemp("cohort") / "phantoms", 3, positive_fraction=0.5)
    (made / "empty").mkdir()
    return made


def prepare(folder, out, *options):
    paths = ["--scans", folder / "scans", "--labels", folder / "labels", "--out", out]
    return main(["prepare", *map(str, paths), *map(str, options)])


def test_a_cohort_from_end_to_end(folder, tmp_path, capfd):
    out = tmp_path / "shards"
    assert prepare(folder, out, "--bin", "2", "--background", "log") == 0
    printed = capfd.readouterr()
    assert "cases            3 scans of 3 patients (1 negative, 2 positive; 3 breast)" in printed.out
    assert "rejected         0" in printed.out and "320 x 256" in printed.out and "by log" in printed.out
    # A progress bar is for terminals.
    assert printed.err == ""
    dataset = open_shards(out, verify=True)
    assert len(dataset) == 3 and dataset.settings.bin == 2 and dataset.settings.background == "log"
    assert all(7 < case.brightness < 14 for case in dataset.cases)
    assert all(case.uptake_fraction > 0.1 for case in dataset.cases)


def test_problems_are_a_table_and_exit_code_1(folder, tmp_path, capfd):
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "patients.csv").write_text("scan,metastases\nphantom_0001,no\n")
    out = tmp_path / "shards"
    paths = ["--scans", folder / "scans", "--labels", labels, "--out", out]
    assert main(["prepare", *map(str, paths)]) == 1
    printed = capfd.readouterr()
    assert printed.out.splitlines()[0].split() == ["FILE", "REASON", "WHAT", "TO", "KNOW"]
    assert printed.out.count("label-missing") == 2
    assert printed.err.splitlines()[-1].startswith("error: 2 problems, nothing was written, see ")
    assert "--skip-invalid" in printed.err and not out.exists()
    assert main(["prepare", *map(str, paths), "--skip-invalid"]) == 0
    assert len(open_shards(out)) == 1 and len(json.loads((tmp_path / "shards.rejected.json").read_text())) == 2


def test_a_class_map_adds_to_the_known_labels_and_may_change_them(folder, tmp_path):
    classes = tmp_path / "map.json"
    classes.write_text('{"tumour": "metastatic"}')
    assert prepare(folder, tmp_path / "more", "--classes", classes) == 0
    assert open_shards(tmp_path / "more").settings.classes == {
        "metastasis": 2,
        "metastatic": 2,
        "non-metastatic": 1,
        "tumour": 2,
    }
    classes.write_text('{"metastasis": "non-metastatic"}')
    assert prepare(folder, tmp_path / "other", "--classes", classes) == 1


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--workers", "0"], 2, "--workers 0"),
        (["--classes", "/nowhere/map.json"], 1, "no such class map"),
        (["--patients", "/nowhere/patients.csv"], 1, "no such table"),
        (["--labels", "/nowhere"], 2, "/nowhere: no such folder"),
        (["--scans", "/nowhere"], 2, "/nowhere: no such folder"),
        (["--scans", "{folder}/scans/phantom_0001.dcm"], 2, "phantom_0001.dcm: is a file: give its folder"),
        (["--labels", "{folder}/labels/patients.csv"], 2, "patients.csv: is a file: give its folder"),
        (["--labels", "{folder}/empty"], 1, "empty: no annotation is in it (.json or .png)"),
    ],
)
def test_wrong_arguments_are_one_line(folder, tmp_path, capfd, options, code, text):
    options = [str(option).format(folder=folder) for option in options]
    assert prepare(folder, tmp_path / "shards", *options) == code
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and text in lines[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [["--bin", "3"], ["--background", "x"], ["--workers", "x"], ["--surprise"]])
def test_argparse_refuses_the_rest_with_2(folder, tmp_path, options):
    with pytest.raises(SystemExit) as caught:
        prepare(folder, tmp_path / "shards", *options)
    assert caught.value.code == 2
