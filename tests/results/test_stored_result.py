"""Results of earlier predictions that a report cannot show."""

import shutil

import numpy as np
import pytest
from handmade_prediction import make_prediction

from doubleunet_bs.errors import RunError
from doubleunet_bs.files import read_json, write_json
from doubleunet_bs.findings.skeleton_result import find_index
from doubleunet_bs.results.result_files import JobSettings
from doubleunet_bs.results.result_folder import write_prediction
from doubleunet_bs.results.stored_result import read_result


@pytest.fixture(scope="module")
def earlier(scan, tmp_path_factory):
    settings = JobSettings(tmp_path_factory.mktemp("earlier"), ("masks", "labelme"))
    prediction = make_prediction(scan)
    skeleton = find_index(scan, prediction, make_prediction(scan), None)  # all of it skull
    return write_prediction(settings, scan, prediction, skeleton=skeleton)


def test_results_that_cannot_stand_beside_another(earlier, tmp_path):
    def changed(name, work):
        folder = shutil.copytree(earlier.folder, tmp_path / name)
        work(folder)
        return folder

    def rewrite(change):
        return lambda folder: write_json(folder / "result.json", change(read_json(folder / "result.json")))

    def of_a_lesion(**values):
        return rewrite(lambda result: {**result, "lesions": [{**one, **values} for one in result["lesions"]]})

    def of_the_views(**values):
        return rewrite(
            lambda result: {**result, "views": {name: {**one, **values} for name, one in result["views"].items()}}
        )

    def of_the_model(name):
        return rewrite(
            lambda result: {**result, "model": {key: one for key, one in result["model"].items() if key != name}}
        )

    def of_the_index(**values):
        return rewrite(lambda result: {**result, "bone_scan_index": {**result["bone_scan_index"], **values}})

    def thirteen(folder):
        np.save(folder / "regions_anterior.npy", np.full((1024, 256), 13, np.uint8))

    assert len(earlier.result["lesions"]) > 1
    for name, work, message in (
        ("gone", lambda folder: (folder / "view_anterior.png").unlink(), "view_anterior.png: is missing: segment"),
        ("cut", lambda folder: (folder / "mask_anterior.npy").write_bytes(b"xy"), "a damaged result"),
        ("empty", lambda folder: (folder / "mask_anterior.npy").write_bytes(b""), "a damaged result"),
        ("zip", lambda folder: (folder / "mask_anterior.npy").write_bytes(b"PK\5\6" + bytes(18)), "a damaged result"),
        ("png", lambda folder: (folder / "view_anterior.png").write_bytes(b"xy"), "a damaged result"),
        ("old", rewrite(lambda result: {**result, "format": 1}), "not a result of this version"),
        ("hand", rewrite(lambda result: {**result, "lesions": [{"view": "anterior"}]}), "a damaged result"),
        ("fewer", rewrite(lambda result: {**result, "lesions": result["lesions"][1:]}), "a damaged result"),
        ("more", rewrite(lambda result: {**result, "lesions": result["lesions"][:1] * 99}), "a damaged result"),
        ("area", of_a_lesion(area_mm2="big"), "a damaged result"),
        ("crop", of_the_views(window={}), "a damaged result"),
        ("model", of_the_model("weights_sha256"), "a damaged result"),
        ("engine", rewrite(lambda result: {**result, "engine": None}), "a damaged result"),
        ("phantom", rewrite(lambda result: {k: v for k, v in result.items() if k != "phantom"}), "a damaged result"),
        ("regions", thirteen, "a damaged result"),
        ("estimator", of_the_index(estimator=3), "a damaged result"),
        ("value", of_the_index(value="high"), "a damaged result"),
        ("words", rewrite(lambda result: {**result, "warnings": "one"}), "a damaged result"),
        (
            "huge",
            of_the_views(metastatic_pixels=10**400),
            r"not a readable result .* \(a whole number of too many digits",
        ),
        ("kind", rewrite(lambda result: [result]), "not a result of this version"),
    ):
        with pytest.raises(RunError, match=message):
            read_result(changed(name, work))
