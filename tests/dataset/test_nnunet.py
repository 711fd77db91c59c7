"""The data set of nnU-Net against the shards and folds it is made from."""

import errno
import json
import os
import shlex

import numpy as np
import pytest
from intensity_run import make_shards
from PIL import Image

from doubleunet_bs.__main__ import main
from doubleunet_bs.dataset.folds import make_folds
from doubleunet_bs.dataset.nnunet import export_nnunet
from doubleunet_bs.errors import BoneScanError, SettingsError
from doubleunet_bs.preparation.shards import open_shards


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Six positive cases and a negative one."""
    return open_shards(make_shards(tmp_path_factory.mktemp("nnunet") / "shards"))


def read(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def _no_hard_links(*paths):
    """Hard links fail on exFAT and some network shares: none may be needed."""
    raise PermissionError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("normals", [True, False])
def test_images_labels_and_split_are_those_of_the_folds(dataset, normals, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", _no_hard_links)
    folds = make_folds(dataset.cases, 3)
    out = tmp_path / "out"
    assert export_nnunet(dataset, folds, out, normals=normals) == "Dataset501_BoneScan"
    raw = out / "nnUNet_raw" / "Dataset501_BoneScan"
    used = [case for case in dataset.cases if normals or case.group == "positive"]
    assert sorted(path.name for path in (raw / "imagesTr").iterdir()) == sorted(f"{one.case}_0000.png" for one in used)
    for index, case in enumerate(dataset.cases):
        if case in used:
            assert (read(raw / "imagesTr" / f"{case.case}_0000.png") == dataset.grey(index)).all()
            assert (read(raw / "labelsTr" / f"{case.case}.png") == dataset.labels(index)).all()
    about = json.loads((raw / "dataset.json").read_text())
    assert about["labels"] == {"background": 0, "non-metastatic": 1, "metastatic": 2}
    assert about["numTraining"] == len(used)
    splits = json.loads((out / "nnUNet_preprocessed" / "Dataset501_BoneScan" / "splits_final.json").read_text())
    for fold, split in enumerate(splits, start=1):
        ours = folds.split(fold)
        assert set(split["train"]) == {*ours.train, *(ours.negatives if normals else ())}
        assert split["val"] == list(ours.validation)
        names = {path.name for path in (raw / f"imagesTs_fold_{fold:02d}").iterdir()}
        assert names == {f"{case}_0000.png" for case in ours.test}
        assert not set(ours.test) & {*split["train"], *split["val"]}


@pytest.mark.parametrize(("name", "number"), [("Bone Scan", 1), ("../x", 1), ("BoneScan", 0), ("BoneScan", 1000)])
def test_names_that_nnunet_does_not_take(dataset, name, number, tmp_path):
    with pytest.raises(SettingsError):
        export_nnunet(dataset, make_folds(dataset.cases, 3), tmp_path / "out", name, number)
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(dataset, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(BoneScanError, match="exists already"):
        export_nnunet(dataset, make_folds(dataset.cases, 3), tmp_path / "out")


def test_the_command_takes_the_folds_of_a_run(dataset, trained_run, tmp_path, capsys):
    shards = open_shards(json.loads((trained_run / "experiment.json").read_text())["data"]["parts"][0]["path"])
    line = f"export-nnunet {shards.path} --run {trained_run} --out {tmp_path / 'out'}"
    assert main(shlex.split(line)) == 0
    assert "nnUNetv2_train 501 2d 0" in capsys.readouterr().out
    splits = json.loads((tmp_path / "out/nnUNet_preprocessed/Dataset501_BoneScan/splits_final.json").read_text())
    parts = json.loads((trained_run / "folds.json").read_text())["parts"]
    assert [split["val"] for split in splits] == [*parts[1:], parts[0]]
    assert main(shlex.split(f"{line}2 --folds 3")) == 2
