"""The change of the Bone Scan Index since an earlier result, and when none is given."""

import copy
import dataclasses

import numpy as np
import pytest
from handmade_prediction import make_prediction
from intensity_run import SETTINGS, description

from doubleunet_bs.bsi.agreement import REPEATABILITY, REPEATABILITY_BELOW, REPEATABILITY_FROM, REPEATABILITY_HIGHEST
from doubleunet_bs.bsi.regions import region_number
from doubleunet_bs.constants import VIEWS
from doubleunet_bs.errors import RunError
from doubleunet_bs.findings.skeleton_result import check_same_preparation, describe_change, find_index
from doubleunet_bs.results.patient_report import report_page
from doubleunet_bs.results.result_files import JobSettings
from doubleunet_bs.results.result_folder import report_scan, write_prediction
from doubleunet_bs.results.stored_result import read_result


def result(value, before="0"):
    """What the comparison looks at. A letter in `before` makes one of its fields another one."""
    index = {
        "value": value,
        "table": "icrp110-male" if before == "t" else "icrp110-female",
        "estimator": "mean" if before == "e" else "pooled",
        "views": {"anterior": value} if before == "v" else {"anterior": value, "posterior": value},
        "model": {"weights_sha256": "s" if before == "s" else "0"},
    }
    return {
        "bone_scan_index": None if before == "n" else index,
        "model": {"weights_sha256": "m" if before == "m" else "0"},
        "threshold": 0.3 if before == "h" else None,
    }


@pytest.mark.parametrize(("index", "limit"), [(1.0, REPEATABILITY_BELOW), (4.0, REPEATABILITY)])
def test_a_change_stands_beside_the_repeatability(index, limit):
    small = describe_change(result(index + 0.9 * limit), result(index))
    assert small["repeatability"] == limit and small["points"] == pytest.approx(0.9 * limit) and small["within"] is True
    assert small["text"] == (
        f"+{0.9 * limit:.2f} points since the previous scan ({index:.2f} %); "
        f"within the repeatability on phantoms, {limit:.2f} points"
    )
    large = describe_change(result(index), result(index + 1.1 * limit))
    assert large["points"] == pytest.approx(-1.1 * limit) and large["within"] is False
    assert large["text"].endswith(f"%); repeatability on phantoms {limit:.2f} points")


def test_the_repeatability_is_that_of_the_mean_index():
    assert 0 < REPEATABILITY_BELOW < REPEATABILITY < 1 < REPEATABILITY_FROM < REPEATABILITY_HIGHEST
    assert describe_change(result(2.15), result(1.95))["within"] is True
    assert describe_change(result(2.0), result(1.8))["within"] is False
    # Where it was not measured nothing is said to be within it.
    highest = REPEATABILITY_HIGHEST
    above = describe_change(result(highest + 0.1), result(highest))
    assert above["within"] is None and above["text"].endswith(f"measured up to an index of {highest:g} % only")


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("n", "the previous result has no index, segment that scan again with --skeleton"),
        ("t", "the previous index is by the weight table icrp110-male, this one by icrp110-female"),
        ("e", "the previous index is by the estimator mean, this one by pooled"),
        ("m", "the previous lesions are by another model"),
        ("s", "the previous regions are by another model of the skeleton"),
        ("h", "the previous lesions are by another threshold"),
        ("v", "a view is missing in one of the scans"),
    ],
)
def test_results_that_cannot_be_compared_have_no_change(field, reason):
    found = describe_change(result(2.0), result(1.0, field))
    assert found.pop("text") == f"no change is given: {reason}"
    assert set(found.values()) == {None}


def test_the_index_counts_what_was_segmented_and_no_posterior_sternum(scan):
    lesions, regions = ({view: np.zeros((1024, 256), np.uint8) for view in VIEWS} for _ in range(2))
    lesions["anterior"][300:305, 100:120] = 1
    for view in VIEWS:
        regions[view][300:310, 100:120] = region_number("ribs")
        regions[view][1000:1010] = region_number("femora")  # below the crop
    regions["posterior"][320, 100:110] = region_number("sternum")
    prediction = make_prediction(scan, lesions)
    found = find_index(scan, prediction, make_prediction(scan, regions), "icrp110-male")
    # 100 of 2 x 200 pixels of the ribs, which are 8.59 % of the skeleton.
    assert found.index.value == pytest.approx(8.59 / 4) and found.table_reason == "chosen"
    assert [share.name for share in found.index.regions if share.fraction is not None] == ["ribs"]
    assert not (found.regions["posterior"] == region_number("sternum")).any()
    [line] = [line for line in found.warnings if "no view shows them" not in line]
    assert line == "10 pixels of sternum in the posterior view count as not bone"
    # A thousandth of the counts, and the anterior view alone.
    alone = dataclasses.replace(scan, anterior=scan.anterior // 1000 + 1, missing_views=("posterior",))
    found = find_index(alone, prediction, make_prediction(scan, regions), None)
    assert found.index.value == pytest.approx(found.index.regions[3].weight / 2)
    assert set(found.index.views) == {"anterior"} and set(found.regions) == set(VIEWS)
    assert "below 1,000,000 the index is unreliable" in found.warnings[-1]
    assert not any("sternum in" in line for line in found.warnings)


@pytest.mark.slow
def test_report_and_result_say_the_change(scan, tmp_path):
    """Of a result folder, and of a scan that is segmented as well; the report of a scan alone says nothing of it."""
    prediction, empty = make_prediction(scan), make_prediction(scan, {})
    regions = {view: prediction.masks[view] * region_number("ribs") for view in VIEWS}
    now, none = (find_index(scan, one, make_prediction(scan, regions), None) for one in (prediction, empty))
    first = write_prediction(JobSettings(tmp_path / "a"), scan, empty, skeleton=none)
    assert "change" not in first.result["bone_scan_index"]
    for before in (read_result(first.folder), report_scan(scan, empty, none)):
        settings = JobSettings(tmp_path / "b", ("report",), overwrite=True)
        written = write_prediction(settings, scan, prediction, previous=before, skeleton=now)
        change = written.result["bone_scan_index"]["change"]
        assert change == describe_change(written.result, before.result)
        assert change["points"] == pytest.approx(now.index.value) and change["previous"] == 0
        assert f"Bone Scan Index: {change['text']}." in (written.folder / "report.html").read_text()
    lesions_only = copy.deepcopy(before)
    lesions_only.result["bone_scan_index"] = None
    written = write_prediction(settings, scan, prediction, previous=lesions_only, skeleton=now)
    assert "no change is given: the previous result has no index" in (written.folder / "report.html").read_text()
    # Without a skeleton today there is no index to compare.
    written = write_prediction(settings, scan, prediction, previous=before)
    assert written.result["bone_scan_index"] is None
    assert "since the previous scan" not in (written.folder / "report.html").read_text()
    assert "since the previous scan" not in report_page(before)


def test_settings_of_labels_alone_do_not_keep_lesions_and_skeleton_apart():
    """Both networks look at one image, which `--benign own` leaves as it is."""
    skeleton = description()
    for labels in ({"benign": "own"}, {"background": "log"}, {"otsu_histogram": "all"}, {"classes": {"m": 2}}):
        lesions = dataclasses.replace(skeleton, preparation=dataclasses.replace(SETTINGS, **labels))
        check_same_preparation(lesions, skeleton)
    lesions = dataclasses.replace(skeleton, preparation=dataclasses.replace(SETTINGS, brightness="per_view"))
    with pytest.raises(RunError, match=r"prepared differently \(brightness\)"):
        check_same_preparation(lesions, skeleton)
