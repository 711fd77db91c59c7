"""Damaged and absurd files: a scan or a `ScanError` that names the file, never anything else."""

import io
import random
import warnings
import zipfile

import numpy as np
import pytest
from dicom_headers import LOSSLESS, NATIVE, detector, encode, ge_discovery, ge_millennium, siemens, view_code, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from doubleunet_bs.errors import ScanError
from doubleunet_bs.scans import find_scans, read_scan

QUICK = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# Bytes that mean something in a DICOM file: undefined length, items and delimiters, extremes.
TOKENS = [
    b"\xff\xff\xff\xff",
    bytes(4),
    b"\xff\xff\xff\x7f",
    b"\xfe\xff\x00\xe0",
    b"\xfe\xff\x0d\xe0",
    b"\xfe\xff\xdd\xe0",
]


def read_or_refuse(path) -> None:
    """Read in every way there is; anything but a sound scan or a named refusal fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            scan = read_scan(path, allow_missing_view=True)
        except ScanError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error) and error.reason
        else:
            assert scan.anterior.shape == scan.posterior.shape == (1024, 256)
            assert scan.anterior.dtype == scan.posterior.dtype == np.uint16
            assert scan.anterior.any() or scan.posterior.any()
        found = find_scans(path.parent, allow_missing_view=True)
        assert len(found.scans) + len(found.rejected) + len(found.passed_over) >= 1


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Change some bytes, more often in the header than behind it."""
    changed = bytearray(data)
    for _ in range(chance.choice([1, 2, 4, 16])):
        end = min(len(changed), 2500) if chance.random() < 0.75 else len(changed)
        at = chance.randrange(min(128, end - 1), end)
        kind = chance.randrange(6)
        if kind == 0:
            changed[at] = chance.randrange(256)
        elif kind == 1:
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 2:
            changed[at : at + 4] = chance.choice(TOKENS)
        elif kind == 3:
            del changed[at : at + chance.randrange(1, 40)]
        elif kind == 4:
            changed[at:at] = chance.randbytes(chance.randrange(1, 20))
        else:
            changed = changed[: max(at, 160)]
    return bytes(changed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*NATIVE, *LOSSLESS, "siemens", "millennium"])
def test_changed_bytes(tmp_path, kind):
    data = {"siemens": lambda: write(siemens()), "millennium": lambda: write(ge_millennium("anterior"))}.get(
        kind, lambda: encode(ge_discovery(), kind)
    )()
    chance = random.Random(f"bytes {kind}")
    path = tmp_path / "scan"
    for _ in range(12):
        path.write_bytes(mutate(data, chance))
        read_or_refuse(path)


def test_a_header_without_pixels_that_ends_in_an_unknown_type(tmp_path):
    dataset = ge_discovery()
    del dataset.PixelData
    path = tmp_path / "scan"
    path.write_bytes(write(dataset) + b"\x0d\xe0\x01\x00MB\x00\x00")
    with pytest.raises(ScanError):
        read_scan(path)


VALUES = {
    "US": st.one_of(st.integers(0, 65535), st.lists(st.integers(0, 65535), max_size=3)),
    "CS": st.sampled_from(["", "NM", "YES", "TOMO", "DYNAMIC", "STATIC", "RGB", "MONOCHROME1", ["NM", "CT"], "x" * 40]),
    "IS": st.sampled_from(["", "0", "1", "2", "-1", "1e3", "abc", "9" * 30, "1\\2"]),
    "DS": st.sampled_from(["", "0", "1", "-1", "0.1", "nan", "inf", "1e400", "abc", "2.4\\2.4", "\\"]),
}  # fmt: skip
ELEMENTS = {
    **dict.fromkeys(["Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"], "US"),
    **dict.fromkeys(["SamplesPerPixel", "DetectorVector", "EnergyWindowVector"], "US"),
    **dict.fromkeys(["Modality", "ImageType", "PhotometricInterpretation", "BurnedInAnnotation"], "CS"),
    **dict.fromkeys(["PatientID", "SOPInstanceUID", "SpecificCharacterSet"], "CS"),
    **dict.fromkeys(["NumberOfFrames", "CountsAccumulated", "InstanceNumber"], "IS"),
    **dict.fromkeys(["RescaleSlope", "RescaleIntercept", "PixelSpacing"], "DS"),
    **dict.fromkeys(["StartAngle", "ImageOrientationPatient"], "DS"),
}
CHANGES = st.lists(
    st.sampled_from(sorted(ELEMENTS)).flatmap(lambda keyword: st.tuples(st.just(keyword), VALUES[ELEMENTS[keyword]])),
    min_size=1,
    max_size=4,
)


@pytest.mark.slow
@QUICK
@given(changes=CHANGES, in_detector=st.booleans())
def test_absurd_values(tmp_path_factory, changes, in_detector):
    dataset = ge_discovery()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for keyword, value in changes:
            target = dataset.DetectorInformationSequence[0] if in_detector and keyword == "StartAngle" else dataset
            kind = ELEMENTS[keyword]
            if kind == "US":
                values = value if isinstance(value, list) else [value]
                raw = b"".join(number.to_bytes(2, "little") for number in values)
            else:
                raw = "\\".join(value if isinstance(value, list) else [value]).encode()
                raw += b" " * (len(raw) % 2)
            # As bytes of an unchecked element: pydicom would not let us write nonsense otherwise.
            target.pop(keyword, None)
            target._dict[Tag(keyword)] = _raw(keyword, kind, raw)
        data = write(dataset)
    path = tmp_path_factory.mktemp("absurd") / "scan"
    path.write_bytes(data)
    read_or_refuse(path)
    path.unlink()


def _raw(keyword: str, kind: str, value: bytes):
    from pydicom.dataelem import RawDataElement

    return RawDataElement(Tag(keyword), kind, len(value), value, 0, False, True)


TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=30)


@QUICK
@given(
    names=st.lists(TEXT, max_size=3), code=TEXT, angle=st.sampled_from(["0", "180", "90", ""]), items=st.integers(0, 3)
)
def test_absurd_views(names, code, angle, items):
    from doubleunet_bs.dicom_files.views import clues_of_frames, distinguish, view_of_clues

    dataset = Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.private_block(0x11, "GEMS_GENIE_1", create=True).add_new(0x12, "LO", names)
        dataset.DetectorInformationSequence = Sequence(
            [detector(ViewCodeSequence=view_code(code), StartAngle=angle) for _ in range(items)]
        )
    try:
        assert set(distinguish(*clues_of_frames(dataset, 2)).views) == {"anterior", "posterior"}
    except ScanError as error:
        assert error.reason == "ambiguous-pair"
    assert view_of_clues(clues_of_frames(dataset, 1)[0])[0] in (None, "anterior", "posterior")


@QUICK
@given(data=st.binary(max_size=400))
def test_any_bytes(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("bytes") / "scan"
    for content in (data, bytes(128) + b"DICM" + data, b"\x08\x00\x05\x00CS" + data):
        path.write_bytes(content)
        with pytest.raises(ScanError):
            read_scan(path)
    path.unlink()


def test_changed_archives(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/scan", write(ge_discovery()))
        archive.writestr("b", b"hello")
    data, chance = buffer.getvalue(), random.Random(5)
    path = tmp_path / "export.zip"
    for _ in range(60):
        changed = bytearray(data)
        for _ in range(chance.choice([1, 3, 10])):
            # The ends hold the structure.
            near = chance.choice([chance.randrange(80), len(changed) - 1 - chance.randrange(250)])
            changed[near] = chance.randrange(256)
        if chance.random() < 0.2:
            changed = changed[: chance.randrange(4, len(changed))]
        path.write_bytes(changed)
        read_or_refuse(path)
