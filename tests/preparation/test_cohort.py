"""Folders -> shards: what goes in, what does not and why, and that nothing depends on how it was done."""

import json
import pydoc

import numpy as np
import pytest
from PIL import Image

from doubleunet_bs.errors import BoneScanError, SettingsError
from doubleunet_bs.preparation import PreparationSettings, prepare_scan
from doubleunet_bs.preparation import cohort as module
from doubleunet_bs.preparation.cohort import CohortJob, prepare_cohort
from doubleunet_bs.preparation.shards import open_shards
from doubleunet_bs.scans import read_scan
from doubleunet_bs.scans.bone_scan import SHARED_UID_WARNING
from doubleunet_bs.scans.picture_files import PICTURE_WARNING
from doubleunet_bs.scans.pseudonyms import Pseudonyms, load_file_table


def problems(result):
    return {(problem.path, problem.reason) for problem in result.rejected}


def test_positives_and_normals_go_in(cohort):
    cohort.positive("a", 1)
    cohort.normal("b", 2)
    cohort.declare("a,someone,prostate,yes")
    result = cohort.prepare()
    assert result.written and result.rejected == ()
    dataset = open_shards(cohort.out, verify=True)
    positive, normal = dataset.cases
    assert (positive.group, positive.cancer, positive.metastatic_pixels) == ("positive", "prostate", 121)
    assert (normal.group, normal.cancer, normal.metastatic_pixels) == ("negative", "breast", 0)
    # The square of the annotation, moved by the placement, is where the labels are metastatic.
    place = positive.placements["anterior"]
    expected = np.zeros((640, 512), bool)
    expected[400 - place.top : 411 - place.top, 120 - place.left : 131 - place.left] = True
    np.testing.assert_array_equal(dataset.labels(0) == 2, expected)
    assert not cohort.root.joinpath("shards.rejected.json").exists()
    assert sorted(path.name for path in cohort.root.iterdir()) == [
        "labels",
        "scans",
        "shards",
        "shards.files.csv",
        "shards.identities.json",
    ]
    files = {case.case: (str(cohort.scans / f"{name}.dcm"),) for case, name in zip(dataset.cases, "ab", strict=True)}
    assert load_file_table(cohort.root / "shards.files.csv") == files
    assert Pseudonyms.load(cohort.root / "shards.identities.json").files == files


def test_all_problems_are_found_in_one_go_and_nothing_is_written(cohort):
    cohort.positive("good", 1)
    cohort.positive("twin", 1)
    dataset = cohort.dataset(1)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "2.25.999"
    dataset.save_as(cohort.scans / "twin.dcm", enforce_file_format=True)
    cohort.scan("forgotten", 2)
    cohort.scan("empty", 3)
    cohort.label("empty_anterior")
    cohort.scan("says-yes", 4)
    cohort.positive("says-no", 5)
    cohort.scan("unknown-label", 6)
    cohort.label("unknown-label_anterior", (9, 9), label="oedema")
    cohort.scan("which-view", 7)
    cohort.label("which-view", (9, 9))
    cohort.scan("two-frames", 8)
    cohort.label("two-frames", (9, 9), size=(640, 512))
    cohort.label("two-frames_anterior", (9, 9))
    cohort.label("nobody_anterior", (9, 9))
    (cohort.scans / "letter.txt").write_text("not DICOM")
    cohort.declare("says-yes,,,yes", "says-no,,,no", "absent,,,no")
    result = cohort.prepare()
    assert problems(result) == {
        ("twin.dcm", "duplicate"),
        ("forgotten.dcm", "label-missing"),
        ("empty.dcm", "label-missing"),
        ("says-yes.dcm", "label-contradiction"),
        ("says-no.dcm", "label-contradiction"),
        ("unknown-label.dcm", "label-unknown"),
        ("which-view.dcm", "label-frame"),
        ("two-frames.dcm", "label-ambiguous"),
        ("patients.csv", "no-such-scan"),
    }
    assert [(file.path, file.kind) for file in result.passed_over] == [("letter.txt", "not DICOM")]
    assert not result.written and not cohort.out.exists()
    assert not [path for path in cohort.root.iterdir() if path.name.startswith(".")]
    listed = json.loads((cohort.root / "shards.rejected.json").read_text())
    assert [(entry["path"], entry["reason"]) for entry in listed] == sorted(problems(result))
    # Messages name files as the user does, below the folders that he named.
    assert str(cohort.root) not in json.dumps(listed)
    assert "unknown-label_anterior.json: shape 0" in json.dumps(listed)


def test_labels_of_scans_that_are_not_there_are_a_note(cohort):
    cohort.positive("wb1", 1)
    cohort.normal("wb2", 2)
    cohort.declare("wb1,A,breast,yes", *(f"wb{number},B,breast,yes" for number in range(10, 30)))
    for number in range(10, 30):
        cohort.label(f"wb{number}_anterior", (9, 9))
    result = cohort.prepare()
    assert (
        result.written
        and result.rejected == ()
        and result.notes
        == (
            "20 annotation files without a scan: wb10_anterior.json, wb11_anterior.json, wb12_anterior.json "
            "and 17 more",
            "20 lines of patients.csv without a scan: 'wb10', 'wb11', 'wb12' and 17 more",
        )
    )
    assert result.rejected_scans == 0


def test_a_line_without_a_scan_is_a_problem_while_a_scan_has_no_line(cohort):
    cohort.positive("a", 1)
    cohort.declare("other,A,breast,yes")
    assert problems(cohort.prepare()) == {("patients.csv", "no-such-scan")}


def test_a_line_whose_zeros_a_spreadsheet_took_names_the_scan(cohort):
    cohort.positive("0017", 1)
    cohort.declare("17,A,breast,yes")
    [problem] = cohort.prepare().rejected
    assert problem.message == "there is no scan '17': did you mean '0017'?"


@pytest.mark.parametrize("row", ["patient11", "patient11_ant.dcm", "patient11_antt", "Patient11_ANT"])
def test_a_line_near_a_scan_names_it(cohort, row):
    cohort.one_view_files(1, "patient11_ant.dcm", "patient11_post.dcm")
    cohort.label("patient11_ant", (120, 400))
    cohort.label("patient11_post")
    cohort.declare(f"{row},A,breast,yes", "patient11_post,A,breast,yes")
    [problem] = cohort.prepare().rejected
    assert problem.message == f"there is no scan {row!r}: did you mean 'patient11_ant'?"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "wb37_posterior.json.txt", "wb37_posterior.xml", "wb37_posterior.JSON~", "wb37_posterior.jsn", "wb37.geojson",
        "wb37_post.txt", "WB37_posterior.json", "wb37_postrior.json", "wb37-posterior.json", "wb37_posterior (1).json",
        "wb37_posterior_mask.png", "wb037_posterior.json",
    ],
)  # fmt: skip
def test_a_file_that_may_be_the_annotation_is_not_passed_over(cohort, name):
    cohort.positive("wb37", 1)
    cohort.positive("wb38", 2)
    (cohort.labels / "wb37_posterior.json").rename(cohort.labels / name)
    result = cohort.prepare()
    [problem] = result.rejected
    assert (problem.path, problem.reason) == ("wb37.dcm", "label-name") and name in problem.message
    assert result.notes == (), "said once"
    assert len(cohort.prepare(skip_invalid=True).records) == 1


def test_files_beside_a_whole_annotation_are_no_problem(cohort):
    cohort.positive("wb37", 1)
    cohort.normal("wb38", 2)
    cohort.scan("wb39", 3)
    cohort.label("wb39_anterior", (120, 400))
    for name in (
        "wb37_posterior.json.bak", "wb37.txt", "wb38.txt", "wb39_posterior.jpg", "wb39_anterior.json~", "notes.txt",
        "wb4_posterior.xml", "wb390_posterior.json.txt",
    ):  # fmt: skip
        (cohort.labels / name).touch()
    result = cohort.prepare()
    assert result.rejected == () and result.written


def test_the_rest_goes_in_when_asked_for(cohort):
    cohort.positive("a", 1)
    cohort.scan("b", 2)
    cohort.positive("c", 3)
    assert not cohort.prepare().written
    result = cohort.prepare(skip_invalid=True)
    assert result.written and problems(result) == {("b.dcm", "label-missing")}
    assert len(open_shards(cohort.out)) == 2
    assert (cohort.root / "shards.rejected.json").exists()


def test_when_nothing_is_left_nothing_is_written(cohort):
    cohort.scan("b", 2)
    result = cohort.prepare(skip_invalid=True)
    assert not result.written and not cohort.out.exists()


def test_two_headers_with_one_identity_and_other_counts_are_two_cases(cohort):
    cohort.positive("a", 1)
    cohort.positive("b", 2)
    write_as(cohort, "b", 2, "2.25.2")
    result = cohort.prepare()
    assert problems(result) == set() and len({record.case for record in result.records}) == 2
    assert all(SHARED_UID_WARNING in record.warnings for record in result.records)


def test_a_file_that_takes_the_identity_of_another_while_preparing_is_refused(cohort, monkeypatch):
    """Headers are looked at first, files are read later: what came in between shows then."""
    cohort.positive("a", 1)
    cohort.positive("b", 2)
    prepare_task = module.prepare_task

    def changed_meanwhile(task, **others):
        if task.path == "b.dcm":
            write_as(cohort, "b", 2, "2.25.2")
        return prepare_task(task, **others)

    monkeypatch.setattr(module, "prepare_task", changed_meanwhile)
    result = cohort.prepare()
    assert problems(result) == {("b.dcm", "duplicate-identity")} and "header as a.dcm" in result.rejected[0].message
    assert not cohort.out.exists()


def write_as(cohort, name, number, instance):
    dataset = cohort.dataset(number)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = instance
    dataset.save_as(cohort.scans / f"{name}.dcm", enforce_file_format=True)


def test_one_name_in_two_folders_cannot_be_annotated(cohort):
    cohort.positive("a", 1)
    (cohort.scans / "below").mkdir()
    cohort.scan("below/a", 2)
    assert problems(cohort.prepare()) == {("a.dcm", "ambiguous-name"), ("below/a.dcm", "ambiguous-name")}


def test_annotations_of_every_kind_of_file(cohort):
    cohort.scan("side", 1)
    cohort.label("side", (120, 400), (256 + 120, 400), size=(1024, 512))
    cohort.scan("ready", 2)
    cohort.label("ready", (100, 300), size=(640, 512))
    cohort.scan("png", 3)
    mask = np.zeros((1024, 256), np.uint8)
    mask[400:410, 120:130] = 2
    (cohort.labels / "deep").mkdir()
    Image.fromarray(mask).save(cohort.labels / "deep" / "png_anterior.png")
    result = cohort.prepare()
    assert result.rejected == ()
    assert [record.metastatic_pixels for record in result.records] == [100, 121, 242]
    # One view is annotated, the other was perhaps forgotten.
    forgotten = "no annotation file of the posterior view"
    assert [any(forgotten in line for line in record.warnings) for record in result.records] == [True, False, False]


def test_the_key_makes_pseudonyms_and_is_kept(cohort):
    cohort.positive("a", 1)
    first = cohort.prepare().records[0]
    key = cohort.root / "shards.identities.json"
    assert key.stat().st_mode & 0o777 == 0o600
    table = json.loads(key.read_text())
    assert table["cases"][first.case] == "2.25.2" and table["patients"][first.patient] == "ID-1"
    again = cohort.prepare(out=cohort.root / "again", key=key).records[0]
    assert (again.case, again.patient) == (first.case, first.patient)
    other = cohort.prepare(out=cohort.root / "other").records[0]
    assert other.case != first.case and other.patient != first.patient


def test_pictures_to_look_at(cohort):
    cohort.positive("a", 1)
    record = cohort.prepare(pictures=True).records[0]
    dataset = open_shards(cohort.out)
    folder = cohort.out / "png"
    with Image.open(folder / f"{record.case}.png") as image:
        np.testing.assert_array_equal(np.asarray(image), dataset.grey(0))
    with Image.open(folder / f"{record.case}_labels.png") as image:
        assert image.mode == "P" and image.getpalette()[6:9] == [220, 30, 30]
        np.testing.assert_array_equal(np.asarray(image), dataset.labels(0))
    with Image.open(folder / f"{record.case}_overlay.png") as image:
        assert image.width == 1024 and 1280 < image.height < 1500
        pixels = np.asarray(image)[-1280:]  # below the names
    # The outline around the square of 22 x 22 pixels in the enlarged picture, 2 pixels thick.
    assert (pixels == (220, 30, 30)).all(axis=2).sum() == 26 * 26 - 22 * 22


@pytest.mark.parametrize(("place", "failing_call"), [("preparation.shards.np.lib.format.write_array", 2),
                                                     ("files.os.replace", 1),
                                                     ("scans.pseudonyms.create_file", 1),
                                                     ("scans.pseudonyms.create_file", 2),
                                                     ("scans.pseudonyms.write_text", 1)])  # fmt: skip
def test_a_full_disk_leaves_nothing_behind(cohort, monkeypatch, place, failing_call):
    """Neither shards nor the tables that lead from them to the patients, whichever file comes first."""
    cohort.positive("a", 1)
    owner, _, name = place.rpartition(".")
    owner, calls = pydoc.locate(f"doubleunet_bs.{owner}"), []
    real = getattr(owner, name)

    def write(*arguments, **others):
        calls.append(arguments)
        if len(calls) == failing_call:
            raise OSError(28, "No space left on device")
        return real(*arguments, **others)

    monkeypatch.setattr(owner, name, write)
    with pytest.raises(BoneScanError, match=r"/shards\b.*No space left on device"):
        cohort.prepare()
    assert sorted(path.name for path in cohort.root.iterdir()) == ["labels", "scans"]


def test_an_existing_output_is_left_alone(cohort):
    cohort.positive("a", 1)
    cohort.out.mkdir()
    (cohort.out / "precious").write_text("x")
    with pytest.raises(BoneScanError, match="exists already"):
        cohort.prepare()
    assert [path.name for path in cohort.root.iterdir() if "identities" in path.name] == []


@pytest.mark.parametrize("place", ["scans", "labels/inside"])
def test_an_output_inside_the_input_is_refused(cohort, place):
    with pytest.raises(SettingsError, match="lies inside"):
        cohort.prepare(out=cohort.root / place)


def test_an_empty_folder_is_an_error(cohort):
    with pytest.raises(BoneScanError, match="no scan is in it"):
        cohort.prepare()


def test_one_view_goes_in_when_allowed(cohort):
    dataset = cohort.dataset(1)
    frames = np.frombuffer(dataset.PixelData, "<u2").reshape(2, 1024, 256)
    dataset.PixelData, dataset.NumberOfFrames = frames[0].tobytes(), 1
    dataset.CountsAccumulated = int(frames[0].sum(dtype=np.int64))
    for name in ("DetectorInformationSequence", "DetectorVector"):
        value = getattr(dataset, name)
        setattr(dataset, name, value[:1] if name.endswith("Sequence") else 1)
    dataset.NumberOfDetectors = 1
    dataset.save_as(cohort.scans / "one.dcm", enforce_file_format=True)
    cohort.label("one", (120, 400))
    result = cohort.prepare()
    assert not result.written and ("one.dcm", "missing-view") in problems(result)
    result = cohort.prepare(allow_missing_view=True)
    assert result.rejected == ()
    record = result.records[0]
    assert record.missing_views == ("posterior",) and record.metastatic_pixels == 121
    assert any("missing" in line for line in record.warnings)
    assert not open_shards(cohort.out).counts(0)[:, 256:].any()


def test_two_files_of_one_view_each_have_an_annotation_each(cohort):
    cohort.one_view_files(1, "front.dcm", "back.dcm")
    cohort.label("front", (120, 400))
    cohort.label("back", (100, 300), (140, 300))
    cohort.declare("back,Ann,breast,yes")
    result = cohort.prepare()
    assert result.rejected == ()
    labels = open_shards(cohort.out).labels(0)
    assert [int((half == 2).sum()) for half in (labels[:, :256], labels[:, 256:])] == [121, 242]
    assert result.records[0].cancer == "breast"


def test_pictures_go_in_as_scans_and_leave_their_mark(cohort):
    for number in (1, 2):
        for view, counts in cohort.views(number).items():
            (cohort.scans / view).mkdir(exist_ok=True)
            Image.fromarray(np.minimum(counts, 254).astype(np.uint8)).save(cohort.scans / view / f"{number}.png")
        mask = np.zeros((1024, 256), np.uint8)
        mask[400:410, 120 + number : 130] = 2
        Image.fromarray(mask).save(cohort.labels / f"{number}_anterior.png")
    settings = PreparationSettings(source="pictures")
    result = cohort.prepare(settings=settings)
    assert result.rejected == () and [record.metastatic_pixels for record in result.records] == [90, 80]
    dataset = open_shards(cohort.out)
    assert dataset.settings.changes() == {"source": "pictures"} and dataset.cases[0].pixel_spacing_mm is None
    assert all(PICTURE_WARNING in record.warnings for record in dataset.cases)
    assert not [line for record in dataset.cases for line in record.warnings if "do not rely" in line]
    # A model of pictures on counts, and the other way round.
    cohort.dataset(3).save_as(cohort.root / "a.dcm", enforce_file_format=True)
    pictures = read_scan([cohort.scans / view / "1.png" for view in ("anterior", "posterior")])
    for scan, wrong in ((read_scan(cohort.root / "a.dcm"), settings), (pictures, PreparationSettings())):
        assert [line for line in prepare_scan(scan, settings=wrong).warnings if "do not rely on the result" in line]
    with pytest.raises(SettingsError, match="two folders"):
        prepare_cohort(CohortJob(cohort.scans, cohort.scans, cohort.root / "x", settings))
