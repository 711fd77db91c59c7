"""Nothing of the patient gets through: a secret is planted in every element of a header and searched in every byte."""

import pytest
from planted_secrets import NUMBER, SECRET, haystack, plant, plant_everywhere, search

from doubleunet_bs.__main__ import main


@pytest.fixture
def hospital(cohort):
    for name, number in (("scan1", 1), ("scan2", 2)):
        dataset = cohort.dataset(number)
        plant_everywhere(dataset, number)
        dataset.save_as(cohort.scans / f"{name}.dcm", enforce_file_format=True)
    text = cohort.scans.joinpath("scan1.dcm").read_bytes()
    assert text.count(SECRET.encode()) > 50 and text.count(NUMBER.encode()) > 4
    picture = {"imagePath": f"C:\\export\\{SECRET}\\scan.png", "imageData": SECRET * 10, "flags": {SECRET: True}}
    cohort.label("scan1_anterior", (120, 400), **picture)
    cohort.declare(f"scan1,{SECRET} Anna,breast,yes", f"scan2,{SECRET} Berta,,no")
    return cohort


def test_no_byte_of_a_header_gets_into_what_prepare_writes(hospital, capfd):
    key = hospital.root / "key" / "identities.json"
    out = hospital.root / "written" / "shards"
    arguments = ["--scans", hospital.scans, "--labels", hospital.labels, "--out", out, "--key", key, "--write-png"]
    assert main(["prepare", *map(str, arguments)]) == 0
    printed = capfd.readouterr()
    assert len(list(out.rglob("*.png"))) == 6
    search(haystack(hospital.root / "written", ()))
    search([printed.out.encode(), printed.err.encode()])
    # The one file that leads back is elsewhere, and its owner's alone.
    assert SECRET in key.read_text() and key.stat().st_mode & 0o777 == 0o600


def test_nor_into_what_it_says_when_everything_is_wrong(hospital, capfd):
    dataset = hospital.dataset(3)
    plant(dataset)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "TOMO", SECRET]
    dataset.save_as(hospital.scans / "wrong1.dcm", enforce_file_format=True)
    dataset = hospital.dataset(4)
    plant(dataset)
    dataset.Modality = SECRET
    dataset.save_as(hospital.scans / "wrong2.dcm", enforce_file_format=True)
    hospital.scans.joinpath("wrong3.dcm").write_bytes(hospital.scans.joinpath("scan1.dcm").read_bytes()[:-1000])
    hospital.scan("scan4", 5)
    hospital.label("scan4_anterior", (1, 1), version=SECRET)
    out = hospital.root / "written" / "shards"
    key = hospital.root / "key" / "identities.json"
    arguments = ["--scans", hospital.scans, "--labels", hospital.labels, "--out", out, "--key", key]
    assert main(["prepare", *map(str, arguments)]) == 1
    printed = capfd.readouterr()
    assert "wrong1.dcm" in printed.out and "wrong3.dcm" in printed.out
    files = [path for path in (hospital.root / "written").iterdir()]
    assert [path.name for path in files] == ["shards.rejected.json"]
    # The version is the annotator's own word in the annotation, shown to him; headers are what must not show.
    text = files[0].read_text().replace(f"Labelme version '{SECRET}'", "")
    said = (printed.out + printed.err).replace(f"Labelme version '{SECRET}'", "")
    search([text.encode(), said.encode()])


def test_nor_into_what_inspect_shows(hospital, capfd, tmp_path):
    picture = tmp_path / "pictures" / "look.png"
    for options in (["--png", str(picture)], ["--json"]):
        assert main(["inspect", str(hospital.scans / "scan1.dcm"), *options]) == 0
    printed = capfd.readouterr()
    search([printed.out.encode(), printed.err.encode()])
    search(haystack(picture.parent, ()))
