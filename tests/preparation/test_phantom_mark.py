"""A phantom stays recognisable as one from its DICOM header to `dataset.json`."""

import json

import pytest
from pydicom.dataset import Dataset

from doubleunet_bs.dicom_files.header_values import is_phantom
from doubleunet_bs.errors import DatasetError
from doubleunet_bs.preparation.cohort import CohortJob, prepare_cohort
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.preparation.shards import open_shards


def test_shards_say_which_cases_are_phantoms(cohort):
    cohort.positive("phantom", 1)
    dataset = cohort.dataset(2)
    dataset.ManufacturerModelName, dataset.ImageComments = "Discovery NM/CT 670", ""
    dataset.save_as(cohort.scans / "patient.dcm", enforce_file_format=True)
    cohort.declare("patient,,breast,no")
    job = CohortJob(cohort.scans, cohort.labels, cohort.out, PreparationSettings(bin=4))
    assert prepare_cohort(job).written
    found = {case.group: case.phantom for case in open_shards(cohort.out).cases}
    assert found == {"positive": True, "negative": False}

    path = cohort.out / "dataset.json"
    content = json.loads(path.read_text())
    # Written before this was noted: still opens, and nobody knows.
    for case in content["cases"]:
        del case["phantom"]
    path.write_text(json.dumps(content))
    assert [case.phantom for case in open_shards(cohort.out).cases] == [None, None]
    content["cases"][0]["phantom"] = "yes"
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="impossible entry: phantom"):
        open_shards(cohort.out)


@pytest.mark.parametrize(
    ("model", "comments", "expected"),
    [
        ("Discovery NM/CT 670 (SYNTHETIC PHANTOM)", None, True),
        ("Discovery", "SYNTHETIC PHANTOM. Not a patient.", True),
        ("Discovery", "no synthetic phantom", False),
        (None, None, False),
    ],
)
def test_the_mark_is_in_the_model_name_or_begins_the_comments(model, comments, expected):
    dataset = Dataset()
    if model is not None:
        dataset.ManufacturerModelName = model
    if comments is not None:
        dataset.ImageComments = comments
    assert is_phantom(dataset) is expected
