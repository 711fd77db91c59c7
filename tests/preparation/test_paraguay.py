"""Scans from Paraguay: patients of a class whose metastases nobody outlined."""

import dataclasses

import numpy as np
import pytest
from public_layouts import by_number, write_paraguay

from doubleunet_bs.__main__ import main
from doubleunet_bs.dataset.folds import choose_folds, published_folds
from doubleunet_bs.dataset.joined_shards import open_all_shards
from doubleunet_bs.errors import SettingsError
from doubleunet_bs.evaluation.scores.fold_scores import read_scores
from doubleunet_bs.pixel_counts import PixelCounts
from doubleunet_bs.preparation import open_shards
from doubleunet_bs.preparation.public_labels import has_metastases


def prepare_paraguay(folder, out, *options):
    return main(["prepare", "--dataset", "paraguay", "--scans", str(folder), "--out", str(out), "--bin", "4", *options])


@pytest.fixture(scope="module")
def paraguay(tmp_path_factory):
    """The bs80k_shards of the folder with all traps in it."""
    root = tmp_path_factory.mktemp("paraguay")
    assert prepare_paraguay(write_paraguay(root / "archive"), root / "shards", "--skip-invalid") == 0
    return root / "shards"


def test_patients_of_a_class_are_normal_or_unoutlined(paraguay):
    dataset = open_shards(paraguay)
    groups = {number: record.group for number, record in by_number(paraguay).items()}
    assert groups == {1: "unoutlined", 2: "unoutlined", 5: "negative", 6: "negative", 7: "negative", 8: "negative"}
    assert len({record.patient for record in dataset.cases}) == 6
    [source] = dataset.sources
    assert source.licence == "CC BY 4.0" and "PMC11699483" in source.citation and not source.whole


def test_sixteen_bits_survive_the_binning(paraguay):
    """Sums of 16 pixels of white would all be 65,535: the picture looks as that of 8 bits does."""
    dataset = open_shards(paraguay)
    index = [case.case for case in dataset.cases].index(by_number(paraguay)[5].case)
    counts = dataset.counts(index)
    assert 60_000 < counts.max() < 65_535 and np.count_nonzero(counts == counts.max()) < 5
    assert not any("are kept as" in line for line in dataset.cases[index].warnings)


def test_the_traps_of_paraguay_stand_in_the_way(tmp_path, capsys):
    assert prepare_paraguay(write_paraguay(tmp_path / "archive"), tmp_path / "shards") == 1
    said = capsys.readouterr().out
    for text in (
        "A3.png", "has no picture of the posterior view", "damaged-pixels", "Metastasis-free", "unknown-class",
        "60 patients with metastases expected, 3 are in images",
    ):  # fmt: skip
        assert text in said
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize(
    ("name", "metastases"),
    [
        ("Metastasis", True), ("bone-metastases", True), ("Con metástasis óseas", True), ("POSITIVE", True),
        ("No metastasis", False), ("NonMetastatic", False), ("sin_metastasis", False), ("Normal", False),
        ("metastasis free", None), ("benign", None), ("abnormal", None), ("", None),
    ],
)  # fmt: skip
def test_the_class_of_a_folder_is_its_name_or_unknown(name, metastases):
    assert has_metastases(name) is metastases


def test_unoutlined_metastases_never_train(bs80k_shards, paraguay):
    """Normal scans join the training part of the published split; patients with metastases join none."""
    dataset = open_all_shards([bs80k_shards, paraguay], other_patients=True)
    alone, joined = published_folds(open_shards(bs80k_shards).cases).split(1), choose_folds(dataset).split(1)
    assert (joined.test, joined.validation, joined.train) == (alone.test, alone.validation, alone.train)
    of_paraguay = {record.case: record.group for record in open_shards(paraguay).cases}
    added = set(joined.negatives) - set(alone.negatives)
    assert added == {case for case, group in of_paraguay.items() if group == "negative"}
    with pytest.raises(SettingsError, match="0 patients with outlined metastases cannot fill 10 folds"):
        choose_folds(open_shards(paraguay))


@pytest.mark.slow
def test_scans_of_a_class_score_patients(paraguay, tmp_path, capsys):
    from intensity_run import SETTINGS, make_run, make_shards

    settings = dataclasses.replace(SETTINGS, source="pictures")
    run = make_run(tmp_path / "run", make_shards(tmp_path / "own", settings=settings, phantom=False))
    assert main(["evaluate", str(run), "--ensemble", "--data", str(paraguay)]) == 0
    said = capsys.readouterr().out
    assert "ensemble 2 of 2 0 of 4" in " ".join(said.split())
    assert "The ensemble averages the probabilities of folds 1, 2." in said
    assert "no metastasis is outlined in these scans: Dice, lesions and AUC of images" in said
    scores = read_scores(run / "ensemble" / "shards" / "scores.json")
    assert len(scores.unoutlined) == 2 and not scores.scans and scores.pooled == PixelCounts()
    assert scores.comparable.patient_auc == 0.5 and scores.comparable.image_auc["both views"] is None
    report = (run / "ensemble" / "shards" / "report.html").read_text()
    assert "CC BY 4.0" in report and "PMC11699483" in report and "6 scans without outlines that the network" in report
    assert "only figures by patient are defined" in report
