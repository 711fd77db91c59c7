"""Two views in one file and in two files follow the same rules; when two files are not one scan."""

import pytest
from dicom_headers import detector, view_code
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from doubleunet_bs.dicom_files.layout import Layout, differ, energy_window
from doubleunet_bs.dicom_files.sources import Source
from doubleunet_bs.dicom_files.views import (
    CONTRADICTION_WARNING,
    FRAME_ORDER_WARNING,
    clues_of_frames,
    distinguish,
    view_of_clues,
)
from doubleunet_bs.errors import ScanError
from doubleunet_bs.scans.pairing import TIMES_WARNING, describe_view, order_pair, pair_views

# pydicom warns of values that old cameras write.
pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR")

ANTERIOR, POSTERIOR = "anterior", "posterior"
FRONT, BACK = [1, 0, 0, 0, 0, -1], [-1, 0, 0, 0, 0, -1]


def frame(number: int, names=(None, None), code=None, orientation=None, angle=None, **elements) -> Dataset:
    """The header of a one-view file."""
    dataset, item = Dataset(), detector()
    if code:
        item.ViewCodeSequence = view_code(code)
    if orientation:
        item.ImageOrientationPatient = orientation
    if angle is not None:
        item.StartAngle = str(angle)
    dataset.DetectorInformationSequence = Sequence([item])
    dataset.InstanceNumber = number
    for element, name in zip((0x12, 0x30), names, strict=True):
        if name:
            dataset.private_block(0x11, "GEMS_GENIE_1", create=True).add_new(element, "LO", name)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def together(first: Dataset, second: Dataset) -> Dataset:
    """The header of one file with both frames."""
    dataset = Dataset()
    items = [file.DetectorInformationSequence[0] for file in (first, second)]
    dataset.DetectorInformationSequence = Sequence(items)
    dataset.DetectorVector = [1, 2]
    for element in (0x12, 0x30):
        tag = 0x00111000 + element
        if tag in first:
            block = dataset.private_block(0x11, "GEMS_GENIE_1", create=True)
            block.add_new(element, "LO", [first[tag].value, second[tag].value])
    return dataset


def view(dataset: Dataset, name: str = "a"):
    return describe_view(Source(name), dataset, Layout(1, 1024, 256))


def pair(first: Dataset, second: Dataset):
    return order_pair(view(first, "a"), view(second, "b"))


NAMED = ("WB_ANT", "WB_POST")
SITUATIONS = {
    # A GE Xeleris writes one orientation for both detectors.
    "one orientation": ({"orientation": BACK, "angle": 180}, {"orientation": BACK, "angle": 360}, "detector-angle", ()),
    "one angle": ({"orientation": FRONT, "angle": 0}, {"orientation": BACK, "angle": 0}, "orientation", ()),
    "one name for the data sets": (
        {"names": ("WB_ANT", "WB_ANT")}, {"names": ("WB_ANT", "WB_POST")}, "private-view-name", ()
    ),
    "one code": ({"code": "POST", "angle": 180}, {"code": "POST", "angle": 0}, "detector-angle", ()),
    "one view is named": ({"code": "ANT"}, {"code": "WHOLE BODY"}, "view-code", ()),
    "angles against names": (
        {"names": (NAMED[0], None), "angle": 0}, {"names": (NAMED[1], None), "angle": 180}, "private-view-name",
        (CONTRADICTION_WARNING,),
    ),
    "orientations against codes": (
        {"code": "ANT", "orientation": BACK}, {"code": "POST", "orientation": FRONT}, "view-code",
        (CONTRADICTION_WARNING,),
    ),
    "an angle against an orientation": (
        {"orientation": FRONT}, {"orientation": BACK, "angle": 180}, "orientation", (CONTRADICTION_WARNING,)
    ),
    "nothing": ({}, {}, "frame-order", (FRAME_ORDER_WARNING,)),
    "one orientation and nothing else": (
        {"orientation": BACK}, {"orientation": BACK}, "frame-order", (FRAME_ORDER_WARNING,)
    ),
}  # fmt: skip


@pytest.mark.parametrize("situation", SITUATIONS)
def test_the_same_in_one_file_and_in_two(situation):
    front, back, step, warnings = SITUATIONS[situation]
    first, second = frame(1, **front), frame(2, **back)
    found = distinguish(*clues_of_frames(together(first, second), 2))
    assert (found.views, found.step, found.warnings) == ((ANTERIOR, POSTERIOR), step, warnings)
    for files in ((first, second), (second, first)):
        decided = pair(*files)
        assert (decided.step, decided.warnings) == (step, warnings)
        assert decided.anterior.order[2] == 1


@pytest.mark.parametrize("said", [{"names": ("WB_POST", None)}, {"code": "POST"}])
def test_two_views_of_one_name_are_refused_in_one_file_and_in_two(said):
    first, second = frame(1, **said), frame(2, **said)
    with pytest.raises(ScanError, match="two posterior views and no anterior one"):
        distinguish(*clues_of_frames(together(first, second), 2))
    with pytest.raises(ScanError, match="two posterior views and no anterior one"):
        pair(first, second)


def test_a_view_by_itself():
    assert view_of_clues(clues_of_frames(frame(1, code="ANT", angle=180), 1)[0]) == (ANTERIOR, "view-code", ())
    contradiction = view_of_clues(clues_of_frames(frame(1, code="ANT", angle=0), 1)[0])
    assert contradiction == (ANTERIOR, "view-code", (CONTRADICTION_WARNING,))


def when(date=None, time=None, both=None) -> dict:
    found = {"AcquisitionDate": date, "AcquisitionTime": time, "AcquisitionDateTime": both}
    return {keyword: value for keyword, value in found.items() if value is not None}


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        (when("20200102", "101500"), when("20200102", "103000"), True),
        (when("20200102", "101500"), when("20200102", "133000"), False),
        (when("20200102", "10"), when("20200102", "14"), False),
        (when("20200102", "10"), when("20200102", "1250"), True),
        (when("20200102", "1015"), when("20200102", "133000.5"), False),
        (when("2020.01.02", "10:15:00"), when("20200102", "13:30:00.123"), False),
        (when("2020.01.02", "10:15:00"), when("20200102", "101500.999999"), True),
        (when(both="20200102101500.123456+0100"), when(both="20200102133000+0100"), False),
        (when(both="20200102101500+0100"), when(both="20200102091600+0000"), True),
        (when(both="20200102101500+0100"), when(both="20200102101500-0500"), False),
        (when(both="202001021015"), when("20200102", "133000"), False),
        # Without a zone the other clock is not known.
        (when(both="20200102101500+0100"), when(both="20200102133000"), True),
        # Dates alone: midnight may lie between the two.
        (when("20200102"), when("20200103"), True),
        (when("20200102"), when("20200104"), False),
        # Times alone, as some anonymisers leave them.
        (when(time="101500"), when(time="133000"), False),
        (when(time="235000"), when(time="001000"), True),
        (when(both="2020"), when(both="20200102101500"), True),
        ({}, when("20200102", "101500"), True),
    ],
)  # fmt: skip
def test_times_in_every_form_of_dicom(first, second, together):
    files = frame(1, code="ANT", **first), frame(2, code="POST", **second)
    if together:
        assert pair(*files).warnings == ()
    else:
        with pytest.raises(ScanError, match="hours apart"):
            pair(*files)


@pytest.mark.parametrize("text", ["yesterday", "20201399101500", "2020010210150"])
def test_a_time_that_is_none_is_said(text):
    files = frame(1, code="ANT", **when(both=text)), frame(2, code="POST", **when("20200102", "101500"))
    assert pair(*files).warnings == (TIMES_WARNING,)


def window(low: float, high: float) -> Sequence:
    limits, item = Dataset(), Dataset()
    limits.EnergyWindowLowerLimit, limits.EnergyWindowUpperLimit = str(low), str(high)
    item.EnergyWindowRangeSequence = Sequence([limits])
    return Sequence([item])


@pytest.mark.parametrize(("other", "one_scan"), [((126, 154), True), ((124, 156), True), ((100, 120), False)])
def test_two_energy_windows_are_not_two_views_in_one_file_and_in_two(other, one_scan):
    first = frame(1, code="ANT", EnergyWindowInformationSequence=window(126, 154))
    second = frame(2, code="POST", EnergyWindowInformationSequence=window(*other))
    both = Dataset()
    both.EnergyWindowVector = [1, 2]
    both.EnergyWindowInformationSequence = Sequence([*window(126, 154), *window(*other)])
    assert differ(energy_window(both, 0, 2), energy_window(both, 1, 2)) is not one_scan
    if one_scan:
        assert pair(first, second).step == "view-code"
    else:
        with pytest.raises(ScanError, match="different energy windows"):
            pair(first, second)


@pytest.mark.parametrize(
    ("keyword", "values"), [("PatientBirthDate", ("19500101", "19610202")), ("PatientSex", ("F", "M"))]
)
def test_one_patient_id_for_two_patients_makes_no_pair(keyword, values):
    """Anonymisers write one constant for everybody."""
    files = [
        frame(n, code=code, PatientID="0", StudyInstanceUID="1.2", **{keyword: value})
        for n, (code, value) in enumerate(zip(("ANT", "POST"), values, strict=True), start=1)
    ]
    with pytest.raises(ScanError, match="different patients"):
        pair(*files)
    pairs, alone, unclear = pair_views([view(file, str(n)) for n, file in enumerate(files)])
    assert not pairs and not alone and len(unclear) == 2


@pytest.mark.parametrize(
    ("keyword", "values"),
    [("PatientBirthDate", ("19500101", "1950.01.01")), ("PatientSex", ("F", "f ")), ("PatientSex", ("F", ""))],
)
def test_one_person_in_two_forms_makes_a_pair(keyword, values):
    first, second = (
        frame(n, code=code, **{keyword: one}) for n, code, one in zip((1, 2), ("ANT", "POST"), values, strict=True)
    )
    assert pair(first, second).step == "view-code"
