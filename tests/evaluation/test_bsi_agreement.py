"""Agreement of the Bone Scan Index: what is compared, against which truth, and what is left out."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
from intensity_run import BODY, LEVEL, make_run, region_model, write_fold

from doubleunet_bs.__main__ import main
from doubleunet_bs.bsi import WEIGHT_TABLES, bone_scan_index
from doubleunet_bs.bsi.agreement import agreement
from doubleunet_bs.dataset.joined_shards import SkeletonDataset
from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.evaluation.bsi_agreement import IndexAgreement, ScanIndex, evaluate_with_skeleton
from doubleunet_bs.evaluation.evaluate import evaluate_run
from doubleunet_bs.evaluation.scorer import EvaluationSettings
from doubleunet_bs.evaluation.tables import table_text
from doubleunet_bs.inference import Predictor
from doubleunet_bs.phantom import make_cohort
from doubleunet_bs.preparation import PreparationSettings, open_shards
from doubleunet_bs.preparation.cohort import CohortJob, prepare_cohort
from doubleunet_bs.scans import read_scan

SKULL, STERNUM = 1, 5
QUIET = EvaluationSettings(pictures=False, show_progress=False)


def make_skeleton_run(path, shards, region=SKULL, folds=(1, 2, 3)):
    from doubleunet_bs.runs.create_run import create_run
    from doubleunet_bs.runs.experiments import paper_experiment

    dataset = SkeletonDataset.of(open_shards(shards))
    run = create_run(path, paper_experiment("skeleton", folds=3, encoder_weights="none"), dataset)
    for fold in folds:
        write_fold(run, dataset, fold, region_model(*dataset.image_shape, region))
    return path


@pytest.fixture(scope="module")
def cohort(tmp_path_factory, tensorflow):
    """Four phantoms with metastases and skeletons, a run of lesions with predictions, and one of the skeleton."""
    folder = make_cohort(tmp_path_factory.mktemp("agreement") / "phantoms", 4, positive_fraction=1, seed=5)
    job = CohortJob(
        folder / "scans",
        folder / "labels",
        folder / "shards",
        PreparationSettings(bin=4),
        regions=folder / "regions",
    )
    assert prepare_cohort(job).written
    make_run(folder / "lesions", folder / "shards", folds=(1, 2, 3), experiment="dice")
    make_skeleton_run(folder / "skeleton", folder / "shards")
    evaluate_run(folder / "lesions", settings=QUIET, report=False)
    return folder


def compare(cohort, tmp_path, skeleton="skeleton", **others):
    run = shutil.copytree(cohort / "lesions", tmp_path / "run")
    others = {"report": False, "settings": QUIET} | others
    return run, evaluate_with_skeleton(run, cohort / skeleton, **others)[1]


def expected(dataset, index, lesions, regions):
    half = lesions.shape[1] // 2
    parts = {"anterior": np.s_[:, :half], "posterior": np.s_[:, half:]}
    spacing = tuple(4 * side for side in dataset.cases[index].pixel_spacing_mm)
    masks = {view: lesions[part] for view, part in parts.items()}
    bones = {view: np.ascontiguousarray(regions[part]) for view, part in parts.items()}
    return bone_scan_index(masks, bones, WEIGHT_TABLES["icrp110-female"], spacing).value


def test_rows_of_the_table_by_hand():
    """Three phantoms and a patient: what is measured stands first in a name, and bias is measured minus reference."""
    scans = ScanIndex("a", 2.0, 1.0, 3.0), ScanIndex("b", 3.0, 3.0, 4.0), ScanIndex("c", 7.0, 5.0, 7.0)
    found = IndexAgreement((*scans, ScanIndex("d", 8.0, 7.0)), "icrp110-female")
    known, rows = found.comparisons, {row[0]: row[1:] for row in found.table.rows}
    # Differences 1, 0, 2, 1: their standard deviation is sqrt(2/3).
    first, spread = known["predicted against annotated masks"], (2 / 3) ** 0.5
    assert (first.scans, first.bias) == (4, 1.0)
    assert first.limits == pytest.approx((1 - 1.96 * spread, 1 + 1.96 * spread))
    pearson = 22.0 / (26.0 * 20.0) ** 0.5
    variation = 100 * spread / 2**0.5 / 4.5
    assert rows["predicted against annotated masks"] == [
        *("4", f"{pearson:.3f}", "1.000", "+1.00", "-0.60", "+2.60", f"{variation:.1f} %")
    ]
    # Differences -1, -1, 0 and -2, -1, -2.
    assert known["predicted masks against the truth"].bias == pytest.approx(-2 / 3)
    assert known["annotated masks against the truth"].bias == pytest.approx(-5 / 3)
    assert found.pairs == {
        "annotated": ([1.0, 3.0, 5.0, 7.0], [2.0, 3.0, 7.0, 8.0]),
        "true": ([3.0, 4.0, 7.0], [2.0, 3.0, 7.0]),
    }


@pytest.mark.slow
def test_indices_tables_and_report(cohort, tmp_path, capsys):
    run = shutil.copytree(cohort / "lesions", tmp_path / "run")
    assert main(["evaluate", str(run), "--skeleton", str(cohort / "skeleton"), "--no-pictures"]) == 0
    printed = capsys.readouterr().out
    dataset = open_shards(cohort / "shards")
    with open(run / "bsi_scans.csv") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    with open(cohort / "truth.csv") as file:
        truth = {float(row["bsi icrp110-female"]) for row in csv.DictReader(file)}
    assert len(rows) == len(dataset) == 4
    for index, record in enumerate(dataset.cases):
        grey, row = dataset.grey(index), rows[record.case]
        regions = np.asarray(dataset.regions(index))
        body = np.where(grey > BODY, SKULL, 0).astype(np.uint8)
        annotated = expected(dataset, index, np.asarray(dataset.labels(index)) == 2, regions)
        assert float(row["annotated"]) == pytest.approx(annotated, abs=1e-9) and annotated > 0
        assert float(row["predicted"]) == pytest.approx(expected(dataset, index, grey > LEVEL, body), abs=1e-9)
    assert {float(row["true"]) for row in rows.values()} == truth and len(truth) == 4
    content = json.loads((run / "bsi_agreement.json").read_text())
    values = [[float(row[name]) for row in rows.values()] for name in ("true", "predicted")]
    known = agreement(*values)
    written = content["agreement"]["predicted masks against the truth"]
    assert written | {"limits": tuple(written["limits"])} == dataclasses.asdict(known)
    assert f"{known.pearson:.3f}" in printed and "icrp110-female" in printed
    assert f"{known.bias:+.2f}" in (run / "report.html").read_text()
    assert (run / "bsi_agreement.png").stat().st_size > 10_000
    with open(run / "bsi_agreement.csv") as file:
        assert [row["scans"] for row in csv.DictReader(file)] == ["4", "4", "4"]


@pytest.mark.slow
def test_an_evaluation_without_a_skeleton_leaves_no_index_behind(cohort, tmp_path):
    """It writes the report anew, without the index: its files would belong to other scores."""
    run, _ = compare(cohort, tmp_path)
    kept = {path.name for path in run.iterdir() if path.name.startswith("bsi_")}
    assert kept == {"bsi_agreement.json", "bsi_agreement.csv", "bsi_agreement.png", "bsi_scans.csv"}
    assert main(["evaluate", str(run), "--no-pictures", "--no-report"]) == 0
    assert not list(run.glob("bsi_*"))


@pytest.mark.slow
def test_an_ensemble_of_the_skeleton_segments_regions(cohort, tmp_path):
    assert main(["ensemble", str(cohort / "skeleton"), "--out", str(tmp_path / "all")]) == 0
    predictor = Predictor(tmp_path / "all", "tensorflow", precision="float32", skeleton=True)
    prepared = predictor.prepare(read_scan(cohort / "scans" / "phantom_0001.dcm"))
    [found] = predictor.segment([prepared])
    body = prepared.map_back(np.where(prepared.grey > BODY, SKULL, 0).astype(np.uint8))
    assert body["anterior"].any()
    assert all(np.array_equal(found.masks[view], body[view]) for view in body)


@pytest.mark.slow
def test_what_is_of_lesions_is_refused_for_a_skeleton(cohort, tmp_path, capsys):
    """Masks of another program would be scored as lesions; these options would change nothing."""
    skeleton = str(cohort / "skeleton")
    (tmp_path / "fold_01").mkdir()
    for arguments, code, message in (
        (["--predictions", str(tmp_path)], 1, "a run of the skeleton experiment"),
        (["--figures", "pdf"], 2, "--figures is for lesions"),
        (["--overlap", "0.5"], 2, "--overlap is for lesions"),
        (["--no-normals"], 2, "--no-normals is for lesions"),
        ([str(cohort / "lesions")], 1, "a run of the skeleton experiment"),
    ):
        assert main(["evaluate", skeleton, *arguments]) == code
        assert message in capsys.readouterr().err
    train = ["train", "--data", str(cohort / "shards"), "--experiment", "skeleton", "--fold", "1", "--set", "folds=3"]
    train += ["--encoder-weights", "none", "--run", str(tmp_path / "run")]
    assert main([*train, "--pretrain-data", str(cohort / "shards")]) == 2
    assert capsys.readouterr().err.strip().endswith("skeleton does not pre-train: leave out --pretrain-data")
    assert main([*train, "--from", str(cohort / "lesions" / "fold_01")]) in (1, 2)
    assert "a network of 3 classes, not 13" in capsys.readouterr().err


@pytest.mark.slow
def test_a_sternum_seen_from_behind_is_not_bone(cohort, tmp_path):
    make_skeleton_run(tmp_path / "sternum", cohort / "shards", STERNUM, folds=(1,))
    _, found = compare(cohort, tmp_path, tmp_path / "sternum")
    dataset = open_shards(cohort / "shards")
    indices = {record.case: index for index, record in enumerate(dataset.cases)}
    for one in found.scans:
        index = indices[one.case]
        grey = dataset.grey(index)
        front = np.where(grey > BODY, STERNUM, 0).astype(np.uint8)
        front[:, grey.shape[1] // 2 :] = 0
        assert one.predicted == pytest.approx(expected(dataset, index, grey > LEVEL, front), abs=1e-9)
    assert any(one.predicted > 0 for one in found.scans)


@pytest.mark.slow
def test_scans_that_no_fold_tests_are_left_out_and_too_few_have_no_agreement(cohort, tmp_path):
    make_skeleton_run(tmp_path / "one", cohort / "shards", folds=(1,))
    _, found = compare(cohort, tmp_path, tmp_path / "one")
    scans = len(found.scans)
    assert 0 < scans < 3
    text = table_text(found.table)
    assert f"{4 - scans} scans of 4 left out: no trained fold of the skeleton run tests them." in text
    assert f"{scans} of at least 3 scans: agreement is undefined" in text
    row = next(line for line in text.splitlines() if line.startswith("predicted against annotated"))
    assert row.split()[4:] == [str(scans), *"------"]


@pytest.mark.slow
def test_lesions_with_a_benign_class_have_the_same_index(cohort, tmp_path):
    """`--benign own` changes labels alone; images that were prepared differently are refused."""
    own = {"classes": 4, "loss_classes": (1, 2, 3)}
    for name, prepared, trained, folds in (
        ("benign", {"benign": "own"}, own, (1, 2, 3)),
        ("per_view", {"brightness": "per_view"}, {}, (1,)),
    ):
        settings = PreparationSettings(bin=4, **prepared)
        assert prepare_cohort(CohortJob(cohort / "scans", cohort / "labels", tmp_path / name, settings)).written
        make_run(tmp_path / f"{name}_run", tmp_path / name, folds=folds, experiment="dice", **trained)
    _, found = evaluate_with_skeleton(tmp_path / "benign_run", cohort / "skeleton", report=False, settings=QUIET)
    usual = compare(cohort, tmp_path)[1]
    # Cases are named by another key.
    values, expected = (sorted(dataclasses.astuple(scan)[1:] for scan in one.scans) for one in (found, usual))
    assert values == expected and len(values) == 4
    with pytest.raises(RunError, match=r"prepared with other settings than the run's scans \(brightness\)"):
        evaluate_with_skeleton(tmp_path / "per_view_run", cohort / "skeleton", report=False, settings=QUIET)


@pytest.mark.slow
def test_a_truth_of_other_scans_is_not_used(cohort, tmp_path):
    """Phantoms are all called phantom_0001 and so on: the file itself must be the one that was prepared."""
    scan = cohort / "scans" / "phantom_0002.dcm"
    before = scan.read_bytes()
    scan.write_bytes(before + b"\0\0")
    try:
        _, found = compare(cohort, tmp_path)
    finally:
        scan.write_bytes(before)
    assert sum(one.true is None for one in found.scans) == 1
    assert any("gone or changed" in note for note in found.notes)
    assert found.comparisons["predicted masks against the truth"].scans == 3
    patients = dataclasses.replace(found, scans=tuple(dataclasses.replace(one, true=None) for one in found.scans))
    assert list(patients.comparisons) == ["predicted against annotated masks"]


@pytest.mark.slow
def test_what_cannot_be_compared_is_one_line(cohort, tmp_path, capsys):
    run = cohort / "lesions"
    with pytest.raises(RunError, match="not a run of the skeleton experiment: name one with --skeleton"):
        evaluate_with_skeleton(run, run)
    with pytest.raises(RunError, match="evaluate it alone"):
        evaluate_with_skeleton(cohort / "skeleton", cohort / "skeleton")
    with pytest.raises(SettingsError, match="no weight table 'none'"):
        evaluate_with_skeleton(run, cohort / "skeleton", weights="none")
    assert main(["evaluate", str(run), "--weights", "spiers1968"]) == 2
    assert main(["evaluate", str(run), str(run), "--skeleton", str(run)]) == 2
    assert "--weights needs --skeleton" in capsys.readouterr().err
    # Other scans altogether: none has an annotated skeleton there.
    other = make_cohort(tmp_path / "other", 3, positive_fraction=1, seed=6)
    settings = PreparationSettings(bin=4)
    assert prepare_cohort(
        CohortJob(other / "scans", other / "labels", other / "shards", settings, regions=other / "regions")
    ).written
    make_skeleton_run(tmp_path / "strange", other / "shards", folds=(1,))
    with pytest.raises(RunError, match="none of 4 test scans of the run has an annotated skeleton there"):
        compare(cohort, tmp_path, tmp_path / "strange")
