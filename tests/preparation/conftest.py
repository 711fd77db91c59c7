"""Folders of phantoms with every kind of trouble, for the tests of whole preparations."""

import dataclasses
import functools
import json

import numpy as np
import pytest
from public_layouts import prepare_masks, write_masks, write_pictures

from doubleunet_bs.phantom import make_phantom
from doubleunet_bs.phantom.dicom import to_dicom
from doubleunet_bs.preparation.cohort import CohortJob, prepare_cohort


@functools.cache
def one_phantom():
    return make_phantom(0, 0)


@functools.cache
def thinned(number: int) -> dict[str, np.ndarray]:
    """What a faster scan would have recorded: binomial thinning of the counts."""
    random = np.random.default_rng(number)
    part = 0.5 + 0.4 * random.random()
    views = {name: random.binomial(getattr(one_phantom(), name), part) for name in ("anterior", "posterior")}
    return {name: counts.astype(np.uint16) for name, counts in views.items()}


class Cohort:
    """A scans and a labels folder that grow. All scans are thinnings of one phantom: quick, and all different."""

    def __init__(self, root):
        self.root = root
        self.scans, self.labels, self.out = root / "scans", root / "labels", root / "shards"
        self.scans.mkdir(parents=True)
        self.labels.mkdir()
        self.rows = []

    def dataset(self, number: int, patient: str | None = None):
        """A DICOM data set; the same number gives the same counts."""
        views = thinned(number)
        dataset = to_dicom(dataclasses.replace(one_phantom(), **views))
        dataset.SOPInstanceUID = f"2.25.{number + 1}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.StudyInstanceUID = f"2.25.{number + 1}.1"
        dataset.PatientID = patient or f"ID-{number}"
        dataset.CountsAccumulated = int(sum(counts.sum(dtype=np.int64) for counts in views.values()))
        return dataset

    def views(self, number: int) -> dict[str, np.ndarray]:
        return thinned(number)

    def scan(self, name: str, number: int, patient: str | None = None):
        self.dataset(number, patient).save_as(self.scans / f"{name}.dcm", enforce_file_format=True)

    def one_view_files(self, number: int, *paths: str):
        """One scan in two files below the scans folder, the anterior view first."""
        for index, path in enumerate(paths):
            dataset = self.dataset(number)
            frames = np.frombuffer(dataset.PixelData, "<u2").reshape(2, 1024, 256)
            dataset.PixelData, dataset.NumberOfFrames = frames[index].tobytes(), 1
            dataset.CountsAccumulated = int(frames[index].sum(dtype=np.int64))
            dataset.DetectorInformationSequence = dataset.DetectorInformationSequence[index : index + 1]
            dataset.DetectorVector = dataset.NumberOfDetectors = 1
            dataset.remove_private_tags()
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number + 1}.{index}"
            target = self.scans / path
            target.parent.mkdir(parents=True, exist_ok=True)
            dataset.save_as(target, enforce_file_format=True)

    def label(self, stem: str, *points, size=(1024, 256), label="metastasis", **others):
        """An annotation with one square of 11 x 11 pixels at each point."""
        shapes = [
            {
                "label": label,
                "points": [[x, y], [x + 10, y], [x + 10, y + 10], [x, y + 10]],
                "shape_type": "polygon",
                "group_id": None,
                "flags": {},
            }
            for x, y in points
        ]
        content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": "x.png", "imageData": None}
        content |= {"imageHeight": size[0], "imageWidth": size[1]} | others
        (self.labels / f"{stem}.json").write_text(json.dumps(content))

    def declare(self, *rows: str):
        self.rows += rows
        lines = ["scan,patient,cancer,metastases", *self.rows]
        (self.labels / "patients.csv").write_text("\n".join(lines) + "\n")

    def positive(self, name: str, number: int, patient: str | None = None):
        self.scan(name, number, patient)
        self.label(f"{name}_anterior", (120, 400))
        self.label(f"{name}_posterior")

    def normal(self, name: str, number: int):
        self.scan(name, number)
        self.declare(f"{name},,breast,no")

    def prepare(self, **options):
        """The result of preparing the folders into `out`; `options` are those of the job."""
        return prepare_cohort(CohortJob(self.scans, self.labels, **{"out": self.out} | options))


@pytest.fixture
def cohort(tmp_path):
    return Cohort(tmp_path / "cohort")


@pytest.fixture(scope="session")
def archives(tmp_path_factory):
    """Folders of the pictures and of the masks of BS-80K, with every trap; only read."""
    root = tmp_path_factory.mktemp("archives")
    return write_pictures(root / "pictures"), write_masks(root / "masks")


@pytest.fixture(scope="session")
def bs80k_shards(archives, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "shards"
    assert prepare_masks(archives, out) == 0
    return out
