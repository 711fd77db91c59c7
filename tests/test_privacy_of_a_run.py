"""From DICOM to a prediction: no secret of a header in anything that prepare, train, evaluate or predict write."""

import pydicom
import pytest
from planted_secrets import SECRET, UID, haystack, plant_everywhere, search

from doubleunet_bs.__main__ import main
from doubleunet_bs.evaluation.evaluate import evaluate_run
from doubleunet_bs.phantom import make_cohort


@pytest.mark.slow
def test_no_secret_beyond_the_reader(tmp_path, small_network, monkeypatch, capfd):
    cohort = make_cohort(tmp_path / "hospital", 3, positive_fraction=1.0)
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
    # One file that is refused, so that a refusal is written as well.
    refused = pydicom.dcmread(cohort / "scans" / "phantom_0001.dcm")
    refused.ImageType = ["ORIGINAL", "PRIMARY", "TOMO", SECRET]
    refused.SOPInstanceUID = refused.file_meta.MediaStorageSOPInstanceUID = f"{UID}.1.9"
    refused.save_as(cohort / "scans" / "other.dcm")
    arguments = ["--scans", cohort / "scans", "--labels", cohort / "labels", "--out", out / "shards", "--key", key]
    assert main(["prepare", *map(str, arguments), "--bin", "4", "--write-png", "--skip-invalid"]) == 0
    monkeypatch.setattr("sys.argv", ["train.py", "--data", f"/home/{SECRET}/shards/"])
    arguments = ["--data", out / "shards", "--run", out / "run", "--experiment", "dice", "--fold", 1]
    arguments += ["--folds", 3, "--epochs", 1, "--encoder-weights", "none"]
    assert main(["train", *map(str, arguments)]) == 0
    fold_path = out / "run" / "fold_01"
    evaluate_run(out / "run")
    scan = next(cohort.glob("scans/*.dcm"))
    assert main(["predict", str(scan), "--model", str(fold_path), "--out", str(out / "predicted")]) == 0

    written = {path.name for path in out.rglob("*")}
    json_files = ("dataset", "folds", "scores", "summary", "result", "environment", "model", "shards.rejected")
    assert {"history.csv", "model.keras", *(f"{name}.json" for name in json_files)} <= written
    search(haystack(out, leave_out=()))
    printed = capfd.readouterr()
    search([printed.out.encode(), printed.err.encode()])
    assert SECRET in key.read_text(), "the table that leads back is the user's"
