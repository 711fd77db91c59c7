"""Which frame is which view: each step alone and with the steps before it stripped; then whether the images agree."""

import numpy as np
import pytest
from dicom_headers import (
    body,
    detector,
    ge_discovery,
    ge_millennium,
    ge_names,
    image,
    put_pixels,
    siemens,
    strip,
    view_code,
    write,
)
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from doubleunet_bs.dicom_files.views import (
    MIRRORED_WARNING,
    SAME_WARNING,
    STEPS,
    _cells,
    check_views,
    clues_of_frames,
    distinguish,
    from_detector_angle,
    from_orientation,
    from_private_name,
    from_view_code,
    side_correlation,
    view_in_text,
    view_of_clues,
)
from doubleunet_bs.errors import ScanError
from doubleunet_bs.scans import find_scans, read_scan

ANTERIOR, POSTERIOR = "anterior", "posterior"
FORWARD = (ANTERIOR, POSTERIOR)
BACKWARD = (POSTERIOR, ANTERIOR)


def views_of_frames(dataset: Dataset) -> tuple[tuple[str, str], str]:
    found = distinguish(*clues_of_frames(dataset, 2))
    return found.views, found.step


def view_of_file(dataset: Dataset) -> tuple[str | None, str]:
    return view_of_clues(clues_of_frames(dataset, 1)[0])[:2]


def header(*detectors: Dataset, vector=None) -> Dataset:
    dataset = Dataset()
    dataset.DetectorInformationSequence = Sequence(detectors)
    if vector:
        dataset.DetectorVector = vector
    return dataset


def names(*values: str, element: int = 0x12) -> Dataset:
    dataset = Dataset()
    dataset.private_block(0x11, "GEMS_GENIE_1", create=True).add_new(element, "LO", list(values))
    return dataset


@pytest.mark.parametrize(
    ("text", "view"),
    [
        ("ANTERIOR", ANTERIOR), ("POSTERIOR", POSTERIOR), ("RT      ANT", ANTERIOR), ("LT      POST", POSTERIOR),
        ("WHOLE BODY_ANT", ANTERIOR), ("WB_POST_E", POSTERIOR), ("ANT_EM1", ANTERIOR), ("WBANT", ANTERIOR),
        ("POSTWB", POSTERIOR), ("ANTERO-POSTERIOR PROJECTION", ANTERIOR), ("POSTERO-ANTERIOR", POSTERIOR),
        ("WHOLE BODY_E", None), ("", None), ("ANT POST", None), ("LEFT ANTERIOR OBLIQUE", None), ("RAO ANT", None),
        ("BONE POST INJECTION", None), ("ANT POST THERAPY", ANTERIOR), ("POSTTHERAPY", None), ("IMPLANT", None),
        ("SANTOS^ANTONIA", None), ("LATERAL POST", None),
        ("WB LATE_ANT", ANTERIOR), ("ANT LATE", ANTERIOR), ("WB LATE POST", POSTERIOR), ("POST LATER", POSTERIOR),
        ("LAT ANT", None), ("ANT LLAT", None), ("LATE LT LAT ANT", None), ("ANT_LAT_LATE", None), ("POST RTLAT2", None),
        ("ANT_LAO", None), ("RPO45 POST", None), ("WB_OBL ANT", None), ("ANT POSTEROLATERAL", None),
    ],
)  # fmt: skip
def test_a_text_names_a_view_only_when_it_is_plain(text, view):
    assert view_in_text(text) == view


def test_step_1_view_code():
    front, back = detector(ViewCodeSequence=view_code("RT      ANT")), detector(ViewCodeSequence=view_code("POST"))
    assert from_view_code(header(front, back, vector=[1, 2]), 2) == FORWARD
    assert from_view_code(header(back, front, vector=[1, 2]), 2) == BACKWARD


def test_step_1_knows_the_codes_of_the_standard_without_their_english_meaning():
    front = detector(ViewCodeSequence=view_code("de face", "399321004", "SCT"))
    back = detector(ViewCodeSequence=view_code("de dos", "R-10214", "SRT"))
    assert from_view_code(header(front, back), 2) == FORWARD


def test_step_1_reads_the_top_level_of_a_one_view_file():
    dataset = Dataset()
    dataset.ViewCodeSequence = view_code("Posterior")
    assert from_view_code(dataset, 1) == (POSTERIOR,)
    # At the top of a two-frame file it could not describe both frames.
    assert from_view_code(dataset, 2) == (None, None)


def test_the_detector_vector_orders_the_items():
    front, back = detector(StartAngle="180"), detector(StartAngle="0")
    assert from_detector_angle(header(front, back, vector=[2, 1]), 2) == BACKWARD
    assert from_detector_angle(header(front, back, vector=[2]), 1) == (POSTERIOR,)
    # Without a usable vector the items are in frame order, if there is one for each frame.
    assert from_detector_angle(header(front, back, vector=[1, 7]), 2) == FORWARD
    assert from_detector_angle(header(front, vector=[1, 1]), 2) == (None, None)


@pytest.mark.parametrize("element", [0x12, 0x30])
def test_step_2_private_names(element):
    assert from_private_name(names("WB_ANT", "WB_POST", element=element), 2, element) == FORWARD
    assert from_private_name(names("POSTERIOR_E", element=element), 1, element) == (POSTERIOR,)


def test_step_2_believes_the_names_of_late_images(tmp_path):
    front, back = body()
    dataset = image(np.stack([back, front]))
    ge_names(dataset, ["WB LATE_POST", "WB LATE_ANT"])
    scan = read_scan(write(dataset, tmp_path / "scan"))
    assert scan.view_source == "private-view-name" and scan.warnings == ()
    assert np.array_equal(scan.anterior, front) and np.array_equal(scan.posterior, back)


def test_step_2_needs_a_name_for_each_frame():
    assert from_private_name(names("WB_ANT"), 2, 0x12) == (None, None)
    # An empty name is one: the other frame is known by it.
    assert from_private_name(names("", "WB_ANT"), 2, 0x12) == (None, ANTERIOR)
    assert views_of_frames(names("", "WB_ANT")) == (BACKWARD, "private-view-name")
    assert views_of_frames(names("WB_ANT", "")) == (FORWARD, "private-view-name")


def test_step_2_survives_a_lost_creator_and_unknown_types():
    dataset = Dataset()
    dataset.add_new(0x00111012, "UN", b"ANT\\POST ")
    assert from_private_name(dataset, 2, 0x12) == FORWARD


def test_step_2_finds_the_block_wherever_the_creator_put_it():
    dataset = Dataset()
    dataset.private_block(0x11, "ANOTHER VENDOR", create=True).add_new(0x12, "LO", ["POST", "ANT"])
    assert from_private_name(dataset, 2, 0x12) == (None, None)
    dataset.private_block(0x11, "GEMS_GENIE_1", create=True).add_new(0x12, "LO", ["ANT", "POST"])
    assert from_private_name(dataset, 2, 0x12) == FORWARD


def test_step_2_names_that_tell_the_frames_apart_come_first():
    """The data set may have one name for both frames, and the pictures one each."""
    dataset = names("WHOLE BODY ANT", "WHOLE BODY ANT", element=0x12)
    assert from_private_name(dataset, 2, 0x12) == (ANTERIOR, ANTERIOR)
    dataset.private_block(0x11, "GEMS_GENIE_1").add_new(0x30, "LO", ["WB_POST", "WB_ANT"])
    assert views_of_frames(dataset) == (BACKWARD, "private-view-name")


@pytest.mark.parametrize(
    ("orientation", "view"),
    [
        # The two views, each also turned by 180 degrees in its plane: the side they are seen from stays.
        ([1, 0, 0, 0, 0, -1], ANTERIOR), ([-1, 0, 0, 0, 0, 1], ANTERIOR),
        ([-1, 0, 0, 0, 0, -1], POSTERIOR), ([1, 0, 0, 0, 0, 1], POSTERIOR), ([-0.98, 0.17, 0, 0, 0, -1], POSTERIOR),
        # Lateral or axial pictures show neither view, and two equal directions are no picture.
        ([0, 1, 0, 0, 0, -1], None), ([0.1, 1, 0, 0, 0, -1], None), ([1, 0, 0, 0, 1, 0], None),
        ([1, 0, 0, 1, 0, 0], None), ([2, 0, 0, 0, 0, -1], None), (None, None),
    ],
)  # fmt: skip
def test_step_3_orientation(orientation, view):
    item = detector(ImageOrientationPatient=orientation) if orientation else detector()
    assert from_orientation(header(item), 1) == (view,)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("turned", [True, False])
def test_a_scan_with_the_feet_up_is_refused_whatever_names_its_views(tmp_path, named, turned):
    frames = np.stack(body())[:, ::-1, :: -1 if turned else 1]
    dataset = image(frames)
    left = -1 if turned else 1
    dataset.DetectorInformationSequence = Sequence(
        [detector(ImageOrientationPatient=[x, 0, 0, 0, 0, 1]) for x in (left, -left)]
    )
    if named:
        ge_names(dataset, ["WB_ANT", "WB_POST"])
    path = write(dataset, tmp_path / "scan")
    with pytest.raises(ScanError, match="feet up") as caught:
        read_scan(path)
    assert caught.value.reason == "feet-up"
    (rejection,) = find_scans(tmp_path).rejected
    assert (rejection.path, rejection.reason) == ("scan", "feet-up")


def test_one_view_with_the_feet_up_is_refused(tmp_path):
    dataset = ge_millennium(ANTERIOR)
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 0.17, 0.98]
    with pytest.raises(ScanError) as caught:
        read_scan(write(dataset, tmp_path / "scan"), allow_missing_view=True)
    assert caught.value.reason == "feet-up"


@pytest.mark.parametrize(
    ("angle", "view"),
    [("180", ANTERIOR), ("-180", ANTERIOR), ("178.5", ANTERIOR), ("0", POSTERIOR), ("360", POSTERIOR),
     ("357", POSTERIOR), ("90", None)],
)  # fmt: skip
def test_step_4_detector_angle(angle, view):
    assert from_detector_angle(header(detector(StartAngle=angle)), 1) == (view,)


def test_the_steps_are_tried_in_order_as_the_earlier_ones_are_stripped():
    dataset = ge_discovery()
    strip(dataset, "DetectorInformationSequence")
    # Each step says another thing than the step after it: only the order can explain the answers.
    dataset.DetectorInformationSequence = Sequence([
        detector(ViewCodeSequence=view_code("ANT"), ImageOrientationPatient=[1, 0, 0, 0, 0, -1], StartAngle="0"),
        detector(ViewCodeSequence=view_code("POST"), ImageOrientationPatient=[-1, 0, 0, 0, 0, -1], StartAngle="180"),
    ])  # fmt: skip
    ge_names(dataset, ["POST", "ANT"])
    assert views_of_frames(dataset) == (FORWARD, "view-code")
    strip(dataset, "ViewCodeSequence")
    assert views_of_frames(dataset) == (BACKWARD, "private-view-name")
    strip(dataset, "private")
    assert views_of_frames(dataset) == (FORWARD, "orientation")
    strip(dataset, "ImageOrientationPatient")
    assert views_of_frames(dataset) == (BACKWARD, "detector-angle")
    strip(dataset, "StartAngle")
    assert views_of_frames(dataset) == (FORWARD, "frame-order")


def test_a_step_that_calls_both_frames_the_same_decides_nothing():
    dataset = names("WB_ANT", "WB_ANT")
    dataset.DetectorInformationSequence = Sequence([detector(StartAngle="0"), detector(StartAngle="180")])
    assert views_of_frames(dataset) == (BACKWARD, "detector-angle")


def test_one_named_frame_names_the_other():
    assert views_of_frames(names("WHOLE BODY_E", "WB_ANT")) == (BACKWARD, "private-view-name")


def test_a_one_view_file_without_a_name_has_no_view():
    assert view_of_file(ge_millennium(ANTERIOR)) == (ANTERIOR, "private-view-name")
    assert view_of_file(ge_millennium(ANTERIOR, name="WHOLE BODY_E")) == (None, "frame-order")


@pytest.mark.parametrize("step", [*STEPS, "frame-order"])
@pytest.mark.parametrize("order", [FORWARD, BACKWARD])
def test_read_scan_by_each_step_alone(tmp_path, step, order):
    front, back = body()
    frames = np.stack([front if view == ANTERIOR else back for view in order])
    dataset = image(frames)
    values = {
        "view-code": {view: {"ViewCodeSequence": view_code(view)} for view in order},
        "orientation": {ANTERIOR: {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]},
                        POSTERIOR: {"ImageOrientationPatient": [-1, 0, 0, 0, 0, -1]}},
        "detector-angle": {ANTERIOR: {"StartAngle": "180"}, POSTERIOR: {"StartAngle": "0"}},
    }.get(step, {view: {} for view in order})  # fmt: skip
    dataset.DetectorVector = [1, 2]
    dataset.DetectorInformationSequence = Sequence([detector(**values[view]) for view in order])
    if step == "private-view-name":
        ge_names(dataset, [f"WB_{view[:4].rstrip('e').upper()}" for view in order])
    scan = read_scan(write(dataset, tmp_path / "scan"))
    assert scan.view_source == step
    if step == "frame-order":
        # Nothing says that the frames are exchanged: the first is taken, and the user is told.
        assert np.array_equal(scan.anterior, frames[0])
        assert len(scan.warnings) == 1 and "does not say which view" in scan.warnings[0]
    else:
        assert np.array_equal(scan.anterior, front) and np.array_equal(scan.posterior, back)
        assert scan.warnings == ()


@pytest.mark.parametrize(
    ("dataset", "step"), [(strip(ge_discovery(), "private"), "detector-angle"), (siemens(), "view-code")]
)
def test_headers_without_private_names(tmp_path, dataset, step):
    scan = read_scan(write(dataset, tmp_path / "scan.dcm"))
    assert scan.view_source == step and scan.warnings == ()
    assert np.array_equal(scan.anterior, body()[0]) and np.array_equal(scan.posterior, body()[1])


def counts(view) -> np.ndarray:
    return np.ascontiguousarray(view, dtype=np.uint16)


@pytest.mark.parametrize("shift", [0, 7, -20])
def test_a_true_pair_passes_wherever_the_patient_lies(shift):
    front, back = body()
    assert check_views(counts(np.roll(front, shift, axis=1)), counts(np.roll(back, -shift, axis=1))) == []
    # The two heads need not be aligned with each other.
    assert check_views(counts(np.roll(front, shift, axis=1)), counts(np.roll(back, 11, axis=0))) == []


def test_a_posterior_view_stored_mirrored_is_reported():
    front, back = body()
    assert check_views(counts(front), counts(back[:, ::-1])) == [SAME_WARNING]
    # Seen from the front with other organs in it: no second look at the same counts.
    changed = back[:, ::-1].copy()
    changed[300:400, 110:150] += 40
    assert check_views(counts(front), counts(changed)) == [MIRRORED_WARNING]


@pytest.mark.parametrize("shifts", [(0, 0), (15, -8)])
def test_the_correlation_has_the_sign_of_the_side(shifts):
    """Each view is taken about the middle of its own body."""
    front, back = (counts(np.roll(view, shift, axis=1)) for view, shift in zip(body(), shifts, strict=True))
    assert -1.0001 < side_correlation(front, back) < -0.9
    assert 0.9 < side_correlation(front, counts(back[:, ::-1])) < 1.0001


def test_a_symmetric_body_is_not_reported():
    symmetric = np.zeros((1024, 256), np.uint16)
    symmetric[100:900, 96:160] = 20
    other = symmetric.copy()
    other[200:300, 120:136] = 50
    assert side_correlation(symmetric, other) == 0
    assert check_views(symmetric, other) == []


def test_counts_are_summed_over_blocks_of_8_rows_and_2_columns():
    """Of the largest counts as well, whose sums are beyond 16 bits."""
    view = np.zeros((16, 4), np.uint16)
    view[:8, :2] = 65_535
    view[15, 2:] = 1, 2
    assert _cells(view).tolist() == [[16 * 65_535, 0], [0, 3]]


def test_identical_views_are_refused(tmp_path):
    front, _ = body()
    dataset = ge_discovery()
    put_pixels(dataset, np.stack([front, front]))
    path = write(dataset, tmp_path / "scan.dcm")
    with pytest.raises(ScanError, match="same pixels in both views") as caught:
        read_scan(path)
    assert caught.value.reason == "same-view"


def test_a_mirrored_posterior_view_is_a_warning_of_the_scan_and_stays_as_it_is(tmp_path):
    front, back = body()
    changed = back[:, ::-1].copy()
    changed[300:400, 110:150] += 40
    dataset = ge_discovery()
    put_pixels(dataset, np.stack([front, changed]))
    dataset.CountsAccumulated = int(front.sum() + changed.sum())
    scan = read_scan(write(dataset, tmp_path / "scan.dcm"))
    assert scan.warnings == (MIRRORED_WARNING,)
    assert np.array_equal(scan.posterior, changed)


@pytest.mark.slow
def test_phantoms_raise_no_false_alarm():
    phantom = pytest.importorskip("doubleunet_bs.phantom.scan")
    for index in range(4):
        scan = phantom.make_phantom(3, index, ("breast", "prostate")[index % 2], index < 2)
        assert check_views(scan.anterior, scan.posterior) == []
        assert check_views(scan.anterior, counts(scan.posterior[:, ::-1])) == [MIRRORED_WARNING]
