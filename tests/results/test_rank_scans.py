"""`rank`: the order, the table for its owner, and outlines that become labels."""

import base64
import csv
import dataclasses
import io
import json
import shutil
import stat

import numpy as np
import pytest
from intensity_run import LEVEL, SETTINGS, intensity_model, make_run, make_shards, write_fold
from PIL import Image

from doubleunet_bs.__main__ import main
from doubleunet_bs.inference import committee
from doubleunet_bs.inference.committee import Committee
from doubleunet_bs.preparation import PreparationSettings, prepare_scan
from doubleunet_bs.preparation.shards import ShardWriter, open_shards
from doubleunet_bs.runs.run_folder import open_run
from doubleunet_bs.scans import read_scan
from doubleunet_bs.serving.export import export_fold


@pytest.fixture
def archive(tmp_path, phantoms):
    """Two scans of one name in two folders, and one scan twice."""
    folder = tmp_path / "archive"
    for place, name in (("2019", "phantom_0001"), ("2020", "phantom_0002"), ("copy", "phantom_0002")):
        (folder / place).mkdir(parents=True)
        shutil.copy(phantoms / f"{name}.dcm", folder / place / "scan.dcm")
    return folder


def rank(*arguments):
    return main(["rank", *map(str, arguments)])


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_outlines_are_corrected_and_become_labels(trained_run, archive, tmp_path, capsys):
    out, model = tmp_path / "next", trained_run / "fold_01"
    assert rank(archive, "--model", model, "--out", out, "--outlines", 2) == 0
    printed = capsys.readouterr()
    assert (
        printed.err == ""
        and "warning" not in printed.out
        and f"2 scans by entropy: {out / 'ranking.csv'}" in printed.out
    )
    rows = read(out / "ranking.csv")
    assert stat.S_IMODE((out / "ranking.csv").stat().st_mode) == 0o600
    assert [row["rank"] for row in rows] == ["1", "2"]
    assert float(rows[0]["entropy"]) >= float(rows[1]["entropy"]) > 0
    assert {row["disagreement"] for row in rows} == {""}
    committee = Committee(model)
    for row in rows:
        scan = read_scan(row["path"])
        found = committee.judge(prepare_scan(scan, settings=SETTINGS).grey)
        assert (scan.case, f"{found.entropy:.6g}") == (row["case"], row["entropy"])
        assert row["metastatic_pixels"] == str(found.mask.sum())

    files = sorted(path.relative_to(out / "outlines").as_posix() for path in (out / "outlines").rglob("*.json"))
    assert files == [f"{year}/scan_{view}.json" for year in (2019, 2020) for view in ("anterior", "posterior")]
    # Labelme opens the file alone: the picture is in it. A physician removes an outline.
    path = out / "outlines" / "2019" / "scan_anterior.json"
    content = json.loads(path.read_text())
    with Image.open(io.BytesIO(base64.b64decode(content["imageData"]))) as picture:
        assert picture.size == (content["imageWidth"], content["imageHeight"]) == (256, 1024)
    content["shapes"].pop(0)
    path.write_text(json.dumps(content))

    shutil.rmtree(archive / "copy")
    shards = tmp_path / "shards"
    options = ["--labels", out / "outlines", "--out", shards, "--bin", 4]
    assert main(["prepare", "--scans", str(archive), *map(str, options)]) == 0
    dataset = open_shards(shards)
    for index, case in enumerate(dataset.cases):
        corrected = case.pixel_sha256 == read_scan(archive / "2019" / "scan.dcm").pixel_sha256
        predicted = dataset.grey(index) > LEVEL
        labels = np.asarray(dataset.labels(index)) == 2
        assert not (labels & ~predicted).any()
        assert np.array_equal(labels, predicted) != corrected


@pytest.fixture(scope="module")
def contradicting(trained_run, tmp_path_factory):
    """A run of two folds, of which the second finds less."""
    shards = open_shards(trained_run.parent / "shards")
    path = make_run(tmp_path_factory.mktemp("two") / "run", shards.path, folds=(1,))
    run = open_run(path)
    write_fold(run, shards, 2, intensity_model(*shards.image_shape, LEVEL + 50))
    for fold in (1, 2):
        export_fold(run, fold)
    return path


def test_all_folds_of_a_run(contradicting, archive, tmp_path):
    assert rank(archive, "--model", contradicting, "--out", tmp_path / "out", "--by", "disagreement") == 0
    rows = read(tmp_path / "out" / "ranking.csv")
    assert [float(row["disagreement"]) for row in rows] == sorted(float(row["disagreement"]) for row in rows)[::-1]
    for row in rows:
        assert 0 < float(row["disagreement"]) <= float(row["entropy"])


def test_a_missing_view_of_shards_does_not_count(trained_run, tmp_path):
    model, path = trained_run / "fold_01", tmp_path / "shards"
    path.mkdir()
    usual = open_shards(make_shards(tmp_path / "usual", first=20))
    writer = ShardWriter(path, SETTINGS)
    writer.add(dataclasses.replace(usual.cases[0], missing_views=("posterior",)), usual.counts(0), usual.labels(0))
    writer.finish()
    assert rank(path, "--model", model, "--out", tmp_path / "out") == 0
    committee, grey = Committee(model), open_shards(path).grey(0)
    expected, whole = committee.judge(grey, ("posterior",)).entropy, committee.judge(grey).entropy
    [row] = read(tmp_path / "out" / "ranking.csv")
    assert row["entropy"] == f"{expected:.6g}" != f"{whole:.6g}"


def test_a_useless_model_is_said(trained_run, archive, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("doubleunet_bs.inference.model_description.USEFUL_F1", 1.1)
    assert rank(archive, "--model", trained_run, "--out", tmp_path / "out") == 0
    assert "warning   This model found almost no metastasis on its own validation" in capsys.readouterr().out


def test_shards_have_a_table_only(trained_run, tmp_path, capsys):
    shards = make_shards(tmp_path / "shards", first=5)
    model = trained_run / "fold_01"
    assert rank(shards, "--model", model, "--out", tmp_path / "out") == 0
    # Cases 5 and 6 are those of the training, too.
    assert "left out  2 scans of the shards that the model was trained on" in capsys.readouterr().out
    rows = read(tmp_path / "out" / "ranking.csv")
    assert sorted(row["case"] for row in rows) == [f"case-{number:012x}" for number in range(7, 12)]
    assert {row["path"] for row in rows} == {""}
    assert rank(shards, "--model", model, "--out", tmp_path / "other", "--outlines", 1) == 2
    assert "shards hold no raw views: leave out --outlines, or name the scans instead" in capsys.readouterr().err
    finer = make_shards(tmp_path / "finer", first=20, settings=PreparationSettings(bin=2))
    assert rank(finer, "--model", model, "--out", tmp_path / "other") == 1
    assert "not prepared as the model's scans (bin" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    # Labels play no part in a ranking.
    benign = make_shards(tmp_path / "benign", first=20, settings=dataclasses.replace(SETTINGS, benign="own"))
    assert rank(benign, "--model", model, "--out", tmp_path / "other") == 0


def test_scans_that_cannot_be_used_do_not_stop_the_others(trained_run, archive, tmp_path, capsys):
    damaged = archive / "2019" / "scan.dcm"
    damaged.write_bytes(damaged.read_bytes()[:5000])
    assert rank(archive, "--model", trained_run / "fold_01", "--out", tmp_path / "out") == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and "2019/scan.dcm" in printed.err
    assert len(read(tmp_path / "out" / "ranking.csv")) == 1


@pytest.mark.parametrize(
    "options, code, message",
    [
        (("--by", "disagreement"), 2, "one fold cannot disagree: name a run of several folds, or leave out --by"),
        (("--outlines", "-1"), 2, "--outlines -1: give a number of scans"),
        (("--model", "nowhere"), 1, "nowhere: no such model folder"),
    ],
)
def test_wrong_options_in_one_line(trained_run, phantoms, tmp_path, capsys, monkeypatch, options, code, message):
    # Before TensorFlow is imported, which takes seconds.
    monkeypatch.setattr(committee, "open_engine", lambda model: pytest.fail("the model was opened"))
    assert rank(phantoms, "--model", trained_run / "fold_01", "--out", tmp_path / "out", *options) == code
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_scans_of_the_training_are_left_out(tmp_path, trained_run, capsys):
    own = trained_run.parent / "shards"
    assert rank(own, "--model", trained_run / "fold_01", "--out", tmp_path / "out") == 1
    assert "no usable scan that the model has not seen: name other scans" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_scan_in_one_line(tmp_path, trained_run, capsys):
    (tmp_path / "note.txt").write_text("no scan")
    assert rank(tmp_path / "note.txt", "--model", trained_run / "fold_01", "--out", tmp_path / "out") == 1
    assert capsys.readouterr().err == f"error: {tmp_path}/note.txt: is not a DICOM file\n"


@pytest.mark.slow
def test_shards_of_the_training_that_are_gone_are_said_once(tmp_path, capsys):
    shards = make_shards(tmp_path / "shards")
    run = make_run(tmp_path / "run", shards)
    for fold in (1, 2):
        export_fold(open_run(run), fold)
    again = make_shards(tmp_path / "again")
    shutil.rmtree(shards)
    assert rank(again, "--model", run, "--out", tmp_path / "out") == 0
    assert capsys.readouterr().out.count(f"note      {shards}: is gone: scans of it are not left out") == 1
    assert len(read(tmp_path / "out" / "ranking.csv")) == 7
