"""From DICOM to a prediction: no secret of a header in anything that prepare, train, evaluate or predict write."""

import pydicom
from intensity_run import intensity_model
from planted_secrets import SECRET, haystack, plant_everywhere, search

from doubleunet_bs.__main__ import main
from doubleunet_bs.deployment.saved_model import export_fold
from doubleunet_bs.evaluation.evaluate import evaluate_run
from doubleunet_bs.preparation.shards import open_shards
from doubleunet_bs.scans.phantom import make_cohort
from doubleunet_bs.training.experiments import paper_experiment
from doubleunet_bs.training.replicas import open_replicas
from doubleunet_bs.training.run_folder import create_run
from doubleunet_bs.training.trainer import train_fold


def test_no_secret_beyond_the_reader(tmp_path, monkeypatch, capfd):
    cohort = make_cohort(tmp_path / "hospital", 3, positive_fraction=1.0, progress=False)
    for number, path in enumerate(sorted(cohort.glob("scans/*.dcm")), start=1):
        dataset = pydicom.dcmread(path)
        plant_everywhere(dataset, number)
        dataset.save_as(path)
        assert path.read_bytes().count(SECRET.encode()) > 50
    table = cohort / "labels" / "patients.csv"
    table.write_text(table.read_text().replace("PHANTOM", SECRET))
    assert SECRET in table.read_text()

    out = tmp_path / "out"
    key = tmp_path / "identities.json"
    arguments = ["--scans", cohort / "scans", "--labels", cohort / "labels", "--out", out / "shards", "--key", key, "--bin", "4"]
    assert main(["prepare", *map(str, arguments), "--write-png"]) == 0
    shards = open_shards(out / "shards")
    run = create_run(out / "run", paper_experiment("dice", folds=3, epochs=1, encoder_weights="none"), shards, out / "shards")
    # The real training loop on a network of one convolution: what is written is the same, in a hundredth of the time.
    monkeypatch.setattr("doubleunet_bs.training.trainer.double_unet", lambda shape, *args, **kwargs: intensity_model(*shape[:2]))
    train_fold(run, shards, 1, open_replicas("cpu"))
    evaluate_run(run.path)
    export_fold(run, 1)
    scan = next(cohort.glob("scans/*.dcm"))
    assert main(["predict", str(scan), "--model", str(run.fold_path(1)), "--out", str(out / "predicted")]) == 0

    written = {path.name for path in out.rglob("*")}
    assert {"dataset.json", "folds.json", "history.csv", "scores.json", "summary.json", "result.json", "model.keras"} <= written
    search(haystack(out, leave_out=()))
    printed = capfd.readouterr()
    search([printed.out.encode(), printed.err.encode()])
    assert SECRET in key.read_text(), "the table that leads back is the user's"
