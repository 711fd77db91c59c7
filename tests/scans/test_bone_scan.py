"""Two frames in one file, one view per file, side by side, finer matrices: counts and views to the last one."""

import dataclasses
import hashlib
import zipfile

import numpy as np
import pytest
from dicom_headers import body, ge_discovery, ge_millennium, ge_names, image, put_pixels, strip, write

from doubleunet_bs.dicom_files.pixels import pixel_hash
from doubleunet_bs.dicom_files.sources import Source
from doubleunet_bs.dicom_results.source_study import read_source_study
from doubleunet_bs.errors import ScanError
from doubleunet_bs.scans import Pseudonyms, read_scan
from doubleunet_bs.scans.bone_scan import CHARACTER_SET_WARNING

FRONT, BACK = body()


def refused(paths, **options) -> ScanError:
    with pytest.raises(ScanError) as caught:
        read_scan(paths, **options)
    return caught.value


def assert_counts(scan) -> None:
    assert scan.anterior.dtype == scan.posterior.dtype == np.uint16
    assert np.array_equal(scan.anterior, FRONT) and np.array_equal(scan.posterior, BACK)


def test_two_frames_in_one_file(tmp_path):
    path = write(ge_discovery(), tmp_path / "IM000001")
    scan = read_scan(path)
    assert_counts(scan)
    assert scan.warnings == () and scan.missing_views == ()
    assert scan.pixel_spacing_mm == (2.4, 2.4)
    assert scan.source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert scan.pixel_sha256 == pixel_hash(FRONT.astype(np.uint16), BACK.astype(np.uint16))
    assert scan.case == f"case-{scan.pixel_sha256[:12]}" and scan.patient is None


def test_frames_in_the_other_order(tmp_path):
    dataset = ge_discovery()
    put_pixels(dataset, np.stack([BACK, FRONT]))
    ge_names(dataset, ["WHOLE BODY_POST", "WHOLE BODY_ANT"])
    scan = read_scan(write(dataset, tmp_path / "scan"))
    assert_counts(scan)


@pytest.mark.parametrize("turned", [False, True])
def test_one_view_per_file_in_either_order(tmp_path, turned):
    paths = [write(ge_millennium(view), tmp_path / view) for view in ("anterior", "posterior")]
    contents = b"".join(path.read_bytes() for path in paths)
    scan = read_scan(paths[::-1] if turned else paths)
    assert_counts(scan)
    assert scan.view_source == "private-view-name" and scan.warnings == ()
    assert scan.source_sha256 == hashlib.sha256(contents).hexdigest()


def test_headers_win_over_file_names(tmp_path):
    misnamed = [
        write(ge_millennium("posterior"), tmp_path / "anterior.dcm"),
        write(ge_millennium("anterior"), tmp_path / "posterior.dcm"),
    ]
    assert_counts(read_scan(misnamed))


@pytest.mark.parametrize("nameless", ["anterior", "posterior"])
@pytest.mark.parametrize("turned", [False, True])
def test_one_named_view_names_its_partner(tmp_path, nameless, turned):
    paths = [
        write(ge_millennium(view, name="WHOLE BODY_E" if view == nameless else None), tmp_path / view)
        for view in ("anterior", "posterior")
    ]
    scan = read_scan(paths[::-1] if turned else paths)
    assert_counts(scan)
    assert scan.view_source == "private-view-name" and scan.warnings == ()


def test_two_nameless_views_are_ordered_by_their_detectors_with_a_warning(tmp_path):
    paths = [write(ge_millennium(view, name="WHOLE BODY_E"), tmp_path / view) for view in ("posterior", "anterior")]
    scan = read_scan(paths)
    assert_counts(scan)
    assert scan.view_source == "frame-order"
    assert len(scan.warnings) == 1 and "does not say which view is anterior" in scan.warnings[0]


def test_two_nameless_views_of_one_detector_are_refused(tmp_path):
    datasets = [ge_millennium(view, name="WHOLE BODY_E") for view in ("anterior", "posterior")]
    datasets[1].private_block(0x11, "GEMS_GENIE_1").add_new(0x15, "SL", 1)
    paths = [write(dataset, tmp_path / str(index)) for index, dataset in enumerate(datasets)]
    assert refused(paths).reason == "ambiguous-pair"


def test_views_that_do_not_belong_together_are_refused(tmp_path):
    front = write(ge_millennium("anterior"), tmp_path / "front")
    changes = {
        "study": {"StudyInstanceUID": "1.2.3"},
        "patient": {"PatientID": "ID-2"},
        "hours": {"AcquisitionTime": "131500"},
        "day": {"AcquisitionDate": "20200202"},
        "size": {"PixelSpacing": ["2.2", "2.2"]},
    }
    for name, change in changes.items():
        dataset = ge_millennium("posterior")
        for keyword, value in change.items():
            setattr(dataset, keyword, value)
        error = refused([front, write(dataset, tmp_path / name)])
        assert error.reason == "ambiguous-pair" and str(front) in str(error)
    again = write(ge_millennium("anterior", seed=1), tmp_path / "again")
    assert "two anterior views" in str(refused([front, again]))
    assert "given twice" in str(refused([front, front]))
    fine = ge_millennium("posterior")
    put_pixels(fine, np.repeat(np.repeat(BACK, 2, axis=0), 2, axis=1))
    strip(fine, "PixelSpacing", "CountsAccumulated")
    assert "matrix" in str(refused([front, write(fine, tmp_path / "fine")]))
    both = write(ge_discovery(), tmp_path / "both")
    assert "holds both views" in str(refused([front, both]))
    assert refused([]).reason == refused([front] * 3).reason == "ambiguous-pair"


def test_a_later_view_of_the_same_visit_still_belongs(tmp_path):
    back = ge_millennium("posterior")
    back.AcquisitionTime = "104500.123"
    assert_counts(read_scan([write(ge_millennium("anterior"), tmp_path / "a"), write(back, tmp_path / "b")]))
    # Across midnight at the end of a month, too.
    front = ge_millennium("anterior")
    front.AcquisitionDate, front.AcquisitionTime = "20230228", "234500"
    back.AcquisitionDate, back.AcquisitionTime = "20230301", "001500"
    assert_counts(read_scan([write(front, tmp_path / "a"), write(back, tmp_path / "b")]))


def test_a_missing_view_is_an_error_and_with_leave_a_zero_view(tmp_path):
    path = write(ge_millennium("posterior"), tmp_path / "scan.dcm")
    error = refused(path)
    assert error.reason == "missing-view" and "--allow-missing-view" in str(error)
    assert "the posterior view" in str(error) and "\n" not in str(error)
    scan = read_scan(path, allow_missing_view=True)
    assert np.array_equal(scan.posterior, BACK)
    assert not scan.anterior.any() and scan.anterior.shape == (1024, 256)
    assert scan.missing_views == ("anterior",)
    assert scan.warnings == ("the anterior view is missing: it is all zero",)


def test_the_second_detector_of_a_nameless_view_is_the_posterior_one(tmp_path):
    path = write(ge_millennium("posterior", name="WHOLE BODY_E"), tmp_path / "scan")
    scan = read_scan(path, allow_missing_view=True)
    assert scan.missing_views == ("anterior",) and scan.view_source == "frame-order"
    assert any("taken as posterior" in warning for warning in scan.warnings)


def test_side_by_side_in_one_frame(tmp_path):
    scan = read_scan(write(image(np.hstack([FRONT, BACK])), tmp_path / "scan"))
    assert_counts(scan)
    assert len(scan.warnings) == 1 and "left half is taken as anterior" in scan.warnings[0]


def test_one_wide_view_is_not_taken_for_two_side_by_side(tmp_path):
    wide = np.zeros((1024, 512), int)
    wide[:, 128:384] = FRONT
    error = refused(write(image(wide), tmp_path / "scan"))
    assert error.reason == "wrong-matrix" and "one body in the middle" in str(error)


def test_a_finer_matrix_is_summed_to_the_coarser_one_and_says_so(tmp_path):
    # Every 2 x 2 block of the fine frame holds the counts of one coarse pixel, all in one corner or spread.
    fine = np.zeros((2, 2048, 512), int)
    fine[:, ::2, ::2] = np.stack([FRONT, BACK]) // 2
    fine[:, 1::2, ::2] = np.stack([FRONT, BACK]) - np.stack([FRONT, BACK]) // 2
    dataset = image(fine)
    dataset.PixelSpacing = ["1.2", "1.2"]
    ge_names(dataset, ["ANT", "POST"])
    dataset.CountsAccumulated = int(FRONT.sum() + BACK.sum())
    scan = read_scan(write(dataset, tmp_path / "scan"))
    assert_counts(scan)
    assert scan.pixel_spacing_mm == (2.4, 2.4)
    assert scan.warnings == ("the 2048x512 matrix was summed over 2 x 2 pixels; no count is lost",)


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((2, 512, 1024), None), ((2, 256, 1024), None), ((2, 512, 256), None), ((2, 1024, 512), None),
        ((1, 512, 1024), None), ((1, 1024, 1024), None),
        ((2, 1024, 256), ["2.4", "4.8"]), ((2, 2048, 512), ["2.4", "2.4"]),
        # Centimetres and micrometres.
        ((2, 1024, 256), ["0.24", "0.24"]), ((2, 1024, 256), ["2400", "2400"]), ((2, 2048, 512), ["0.12", "0.12"]),
    ],
)  # fmt: skip
def test_other_matrices_are_refused(tmp_path, shape, spacing):
    dataset = image(np.ones(shape, int))
    dataset.PixelSpacing = spacing
    error = refused(write(dataset, tmp_path / "scan"))
    assert error.reason == "wrong-matrix"
    assert f"{shape[1]} x {shape[2]} pixels" in str(error)


def test_two_energy_windows_of_one_detector_are_not_two_views(tmp_path):
    dataset = ge_discovery()
    dataset.EnergyWindowVector, dataset.DetectorVector = [1, 2], [1, 1]
    assert refused(write(dataset, tmp_path / "scan")).reason == "energy-windows"
    dataset.DetectorVector = [1, 2]
    assert_counts(read_scan(write(dataset, tmp_path / "scan")))


def test_a_file_without_preamble_and_file_header(tmp_path):
    data = write(ge_discovery())
    body_start = data.index(b"\x08\x00\x08\x00CS")
    path = tmp_path / "scan"
    path.write_bytes(data[body_start:])
    assert_counts(read_scan(path))


def test_a_zip_archive_of_one_scan(tmp_path):
    with zipfile.ZipFile(tmp_path / "export.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for view in ("anterior", "posterior"):
            archive.writestr(f"DICOM/PAT/{view[:3]}", write(ge_millennium(view)))
    assert_counts(read_scan(tmp_path / "export.zip"))
    with zipfile.ZipFile(tmp_path / "one.zip", "w") as archive:
        archive.writestr("readme", b"hello")
    error = refused(tmp_path / "one.zip")
    assert error.reason == "archive" and "one.zip: holds 0 scans and 1 not DICOM: give" in str(error)
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a", write(ge_discovery(number=1)))
        archive.writestr("b", write(ge_discovery(number=2)))
    assert "holds 2 scans" in str(refused(tmp_path / "two.zip"))


def test_pseudonyms_name_case_and_patient(tmp_path):
    pseudonyms = Pseudonyms(bytes(32))
    dataset = ge_discovery()
    first = read_scan(write(dataset, tmp_path / "a"), pseudonyms=pseudonyms)
    assert first.case == pseudonyms.case(dataset.SOPInstanceUID)
    assert first.patient == pseudonyms.patient("ID-1")
    # The same scan under another name is the same case; another scan of the patient is another case of his.
    assert read_scan(write(dataset, tmp_path / "b"), pseudonyms=pseudonyms).case == first.case
    second = read_scan(write(ge_discovery(seed=1, number=2), tmp_path / "c"), pseudonyms=pseudonyms)
    assert second.case != first.case and second.patient == first.patient
    # One patient number means another patient at another institution.
    dataset.IssuerOfPatientID = "ELSEWHERE"
    assert read_scan(write(dataset, tmp_path / "d"), pseudonyms=pseudonyms).patient != first.patient
    # Small letters stay small, and make another identifier.
    del dataset.IssuerOfPatientID
    dataset.PatientID = "id-1"
    read_scan(write(dataset, tmp_path / "f"), pseudonyms=pseudonyms)
    assert set(pseudonyms.patients.values()) == {"ID-1", "ID-1\\ELSEWHERE", "id-1"}
    del dataset.PatientID
    assert read_scan(write(dataset, tmp_path / "e"), pseudonyms=pseudonyms).patient is None


def test_a_pair_is_one_case_in_either_order(tmp_path):
    pseudonyms = Pseudonyms(bytes(32))
    paths = [write(ge_millennium(view), tmp_path / view) for view in ("anterior", "posterior")]
    assert read_scan(paths, pseudonyms=pseudonyms).case == read_scan(paths[::-1], pseudonyms=pseudonyms).case


def test_nothing_of_the_header_reaches_the_scan(tmp_path):
    secret, number = "SECRET", "9.87.654321"
    dataset = ge_discovery()
    for keyword in ("InstitutionName", "SeriesDescription", "StudyID", "ImageComments", "OperatorsName", "StationName"):
        setattr(dataset, keyword, secret)
    ge_names(dataset, [f"{secret} ANT", f"{secret} POST"])
    dataset.private_block(0x09, "GEMS_GENIE_1", create=True).add_new(0x40, "LO", secret)
    planted = 0
    for element in dataset:
        if element.VR in ("LO", "SH", "PN", "LT") and not element.tag.is_private:
            element.value = secret
            planted += 1
        elif element.VR == "UI" and element.keyword != "SOPClassUID":
            element.value = number
            planted += 1
    assert planted >= 10
    dataset.file_meta.MediaStorageSOPInstanceUID = number
    dataset.AcquisitionDate = "19991231"
    path = write(dataset, tmp_path / "scan")
    for pseudonyms in (None, Pseudonyms(bytes(32))):
        scan = read_scan(path, pseudonyms=pseudonyms)
        assert scan.view_source == "private-view-name"
        shown = "".join(str(getattr(scan, field.name)) for field in dataclasses.fields(scan))
        for private in (secret, number, "19991231"):
            assert private not in shown


CHARACTERS = [
    (None, "张三".encode("gbk"), True),
    (None, "Müller".encode("latin-1"), True),
    ("ISO_IR 6", "Müller".encode("latin-1"), True),
    ("ISO_IR 100", "Müller".encode("latin-1"), False),
    ("ISO_IR 100", "张三".encode(), True),
    ("ISO_IR 192", "张三".encode(), False),
    ("GB18030", "张三".encode("gb18030"), False),
    ("ISO_IR 192", "Müller".encode("latin-1"), True),
    ("GB18030", b"\xff\xff", True),
    (None, b"Doe", False),
]


@pytest.mark.parametrize(("declared", "raw", "doubtful"), CHARACTERS)
def test_an_identifier_in_another_character_set_than_declared_is_said(tmp_path, declared, raw, doubtful):
    """Exports with and without a declaration would make two patients of one."""
    raw += b" " * (len(raw) % 2)
    dataset = ge_discovery()
    dataset.SpecificCharacterSet = declared
    dataset.PatientName = dataset.PatientID = "~" * len(raw)
    path = tmp_path / "scan.dcm"
    path.write_bytes(write(dataset).replace(b"~" * len(raw), raw))
    scan = read_scan(path, pseudonyms=Pseudonyms(b"k" * 32))
    assert scan.warnings == ((CHARACTER_SET_WARNING,) if doubtful else ())
    assert read_scan(path).warnings == ()
    try:
        assert read_source_study([Source(str(path))]).values["PatientName"].encode() and not doubtful
    except ScanError as error:
        assert doubtful and error.reason == "unreferable" and "PatientName" in str(error)
