"""Public data sets, from the folders of their archives to shards."""

import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from public_layouts import PATIENTS, by_number, mask, prepare_masks, write_skeletons

from doubleunet_bs.__main__ import main
from doubleunet_bs.dataset.folds import published_folds
from doubleunet_bs.errors import DatasetError, LabelError, SettingsError
from doubleunet_bs.files import read_json
from doubleunet_bs.preparation import open_shards, public_data
from doubleunet_bs.preparation.public_data import find_public
from doubleunet_bs.preparation.public_labels import PublicLabels, read_boxes, skeleton


def test_every_usable_scan_has_its_part_and_its_group(bs80k_shards):
    found = {number: (record.part, record.group) for number, record in by_number(bs80k_shards).items()}
    left_out = {11: "in no part", 722: "damaged", 312: "a patient of the test part", 2244: "828 of the test part"}
    expected = {patient.number: patient.part for patient in PATIENTS if patient.number not in left_out}
    assert {number: part for number, (part, _) in found.items()} == expected
    assert {number for number, (_, group) in found.items() if group == "negative"} == {4, 7, 10}
    assert {number for number, (_, group) in found.items() if group == "unknown"} == {5}


def test_warnings_say_what_the_data_set_leaves_open(bs80k_shards):
    records = by_number(bs80k_shards)
    assert "the scan of a child" in records[1240].warnings
    assert "no mask of the posterior view: treated as free of hot spots" in records[3].warnings
    assert any("called abnormal, but no malignant pixel" in line for line in records[5].warnings)


def test_labels_are_those_of_the_masks(bs80k_shards):
    dataset = open_shards(bs80k_shards)
    record = by_number(bs80k_shards)[8]
    index = [case.case for case in dataset.cases].index(record.case)
    patient = next(patient for patient in PATIENTS if patient.number == 8)
    drawn = sum(np.count_nonzero(mask(patient, view) == 2) for view in ("anterior", "posterior"))
    # A block of 4 x 4 pixels is metastatic where most of it is.
    assert 0.5 < 16 * np.count_nonzero(dataset.labels(index) == 2) / drawn < 1.5
    assert dataset.settings.source == "pictures" and record.pixel_spacing_mm is None


def test_the_shards_carry_licence_citation_and_weak_labels(bs80k_shards):
    masks, pictures = open_shards(bs80k_shards).sources
    assert masks.licence == "CC BY 4.0" and "zenodo.23190333" in masks.citation and pictures.licence == "none stated"
    assert any("Weak labels" in line for line in masks.remarks) and "2 manual" in masks.remarks[-1]
    assert not masks.whole and "not all of it" in masks.text


def test_the_published_split_becomes_the_only_fold(bs80k_shards):
    numbers = {record.case: number for number, record in by_number(bs80k_shards).items()}
    split = published_folds(open_shards(bs80k_shards).cases).split(1)
    assert {numbers[case] for case in split.test} == {8, 9, 570, 828}
    assert {numbers[case] for case in split.validation} == {6}
    assert {numbers[case] for case in split.train} == {1, 2, 3, 1240}
    assert {numbers[case] for case in split.negatives} == {4}


@pytest.mark.parametrize("folds", [None, "3"])
def test_nnunet_never_trains_on_the_published_test_part(bs80k_shards, tmp_path, folds, capsys):
    """Not in its cross-validation either, and no test scan lies where nnU-Net plans or trains its fold "all"."""
    assert (
        main(["export-nnunet", str(bs80k_shards), "--out", str(tmp_path), *(["--folds", folds] if folds else [])]) == 0
    )
    assert ("the published split" in capsys.readouterr().out) == (folds is None)
    parts = {record.case: record.part for record in open_shards(bs80k_shards).cases}
    raw = tmp_path / "nnUNet_raw" / "Dataset501_BoneScan"
    there = {parts[path.name.removesuffix("_0000.png")] for path in (raw / "imagesTr").iterdir()}
    assert there == ({"train"} if folds else {"train", "validation"})
    assert {path.name for path in (raw / "labelsTr").iterdir()} == {
        path.name.replace("_0000", "") for path in (raw / "imagesTr").iterdir()
    }
    if not folds:
        split = published_folds(open_shards(bs80k_shards).cases).split(1)
        path = tmp_path / "nnUNet_preprocessed" / "Dataset501_BoneScan" / "splits_final.json"
        [own] = read_json(path, DatasetError, "splits")
        assert set(own["train"]) == {*split.train, *split.negatives} and set(own["val"]) == {*split.validation}
        assert {path.name for path in (raw / "imagesTs_fold_01").iterdir()} == {
            f"{case}_0000.png" for case in split.test
        }


def test_the_table_lists_damage_and_double_patients(archives, tmp_path, capsys):
    assert prepare_masks(archives, tmp_path / "shards") == 0
    said = capsys.readouterr().out
    for line in ("722.jpg", "is the same scan as 828", "is the patient of 570 in the test part"):
        assert line in said
    assert "published split  4 + 1 + 1 train, 1 + 1 + 0 validation, 4 + 1 + 0 test (with metastases + normal +" in said
    assert "bs80k has 3,247 patients, 17 are in pictures" in said
    assert "Licence: CC BY 4.0." in said


def test_a_whole_data_set_says_so(archives, monkeypatch):
    parts = Counter(patient.part for patient in PATIENTS)
    monkeypatch.setattr(public_data, "SPLIT", parts)
    monkeypatch.setattr(public_data, "PATIENTS", 17)
    found = find_public("bs80k-masks", *archives)
    assert all(source.whole for source in found.sources)
    assert found.notes == ("1 patient abnormal in one view alone", "1 case of no part of the split left out")


@pytest.mark.parametrize("name", ["bs80k-masks", "bs80k", "bs80k-skeleton"])
def test_damaged_pictures_count_once(archives, skeletons, monkeypatch, name):
    """Those of 722 are there, too: 17 patients, not 18."""
    parts = Counter(patient.part for patient in PATIENTS)
    monkeypatch.setattr(public_data, "SPLIT", parts)
    monkeypatch.setattr(public_data, "SKELETONS", {"anterior": 17, "posterior": 16})
    labels = skeletons[0] if name == "bs80k-skeleton" else archives[1]
    for patients in (17, 18):
        monkeypatch.setattr(public_data, "PATIENTS", patients)
        assert {source.whole for source in find_public(name, archives[0], labels).sources} == {patients == 17}


def edited_manifest(archives, root, edit):
    """A copy of the masks whose manifest.csv is another one, with no hash of it."""
    masks = shutil.copytree(archives[1], root / "masks")
    text = (masks / "manifest.csv").read_text()
    (masks / "manifest.csv").write_text(edit(text))
    (masks / "SHA256SUMS.txt").unlink()
    return masks


@pytest.mark.parametrize(("spelled", "known"), [("Hot-Spot Masks", True), ("lesions", False)])
def test_a_manifest_without_hot_spots_is_no_scan_without_them(archives, tmp_path, spelled, known):
    masks = edited_manifest(archives, tmp_path, lambda text: text.replace("\nhotspot_masks,", f"\n{spelled},"))
    if known:
        assert not find_public("bs80k-masks", archives[0], masks).rejected
        return
    with pytest.raises(DatasetError, match="has no hot-spot mask: .*found 'lesions', 'skeleton_masks'"):
        find_public("bs80k-masks", archives[0], masks)


@pytest.mark.slow
@pytest.mark.parametrize("gone", ["anterior", None])
def test_an_abnormal_picture_without_a_mask_is_passed_over_with_a_count(archives, tmp_path, gone, capsys):
    """Of 8 the anterior view or both; a normal one (4) is free of hot spots."""

    def without(text):
        rows = text.splitlines(keepends=True)
        patients = ("hotspot_masks,patient_00004,", "hotspot_masks,patient_00008,")
        return "".join(row for row in rows if not (row.startswith(patients) and (gone is None or f",{gone}," in row)))

    masks, out = edited_manifest(archives, tmp_path, without), tmp_path / "shards"
    assert prepare_masks((archives[0], masks), out) == 0
    views = gone or "anterior and posterior"
    warning = f"the {views} view is called abnormal, but has no mask: used for neither training nor testing"
    assert f"1 x {warning} (" in capsys.readouterr().out
    found = by_number(out)
    assert (found[8].group, found[4].group) == ("unknown", "negative") and warning in found[8].warnings
    split = published_folds(open_shards(out).cases).split(1)
    assert found[8].case not in (*split.train, *split.validation, *split.test, *split.negatives)


def test_folders_that_are_files_are_named(archives, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="file: is a file: give its folder"):
        find_public("bs80k-masks", archives[0], tmp_path / "file")


def test_missing_and_changed_files_stand_in_the_way(archives, tmp_path, capsys):
    copies = tuple(shutil.copytree(folder, tmp_path / folder.name) for folder in archives)
    (copies[0] / "BS-80K" / "wholeBodyPOST" / "1.jpg").unlink()
    (copies[1] / "hotspot_masks" / "patient_00006" / "study_6" / "anterior.png").unlink()
    changed = copies[1] / "hotspot_masks" / "patient_00008" / "study_8" / "anterior.png"
    changed.write_bytes(changed.read_bytes() + b"\0")
    assert prepare_masks(copies, tmp_path / "shards") == 1
    said = capsys.readouterr().out
    for reason in ("missing-view", "missing-file", "checksum"):
        assert reason in said
    assert not (tmp_path / "shards").exists()
    assert prepare_masks(copies, tmp_path / "shards", "--skip-invalid") == 0
    assert not {1, 6, 8} & set(by_number(tmp_path / "shards"))


@pytest.mark.parametrize(
    ("file", "edit", "message"),
    [
        ("masks/manifest.csv", lambda text: text.replace(",test,", ",exam,"), "not as SHA256SUMS.txt describes it"),
        ("masks/manifest.csv", None, "has no manifest.csv"),
        ("pictures/BS-80K/wholeBodyANT/wholeBodyANT.txt", None, "wholeBodyANT.txt is missing"),
        ("pictures/BS-80K/wholeBodyANT/wholeBodyANT.txt", lambda text: text.replace("\t", " "), "line 1 is not NAME"),
    ],
)
def test_damaged_tables_are_named(archives, tmp_path, file, edit, message):
    copies = tuple(shutil.copytree(folder, tmp_path / folder.name) for folder in archives)
    path = tmp_path / file
    if edit is None:
        path.unlink()
    else:
        path.write_text(edit(path.read_text()))
    with pytest.raises(DatasetError, match=message):
        find_public("bs80k-masks", *copies)


def test_options_of_other_data_do_not_go_with_it(archives, tmp_path, capsys):
    assert prepare_masks(archives, tmp_path / "shards", "--patients", "patients.csv") == 2
    assert "--patients does not go with --dataset" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("boxes", ["masks", "rectangles"])
def test_boxes_become_masks_by_the_rule_or_rectangles(archives, tmp_path, boxes, capsys):
    out = tmp_path / "shards"
    arguments = ["prepare", "--dataset", "bs80k", "--scans", str(archives[0]), "--out", str(out), "--bin", "4"]
    assert main([*arguments, "--boxes", boxes]) == 0
    found = by_number(out)
    # Without a split nobody is left out but the same scan under another number and what does not open.
    assert set(found) == {patient.number for patient in PATIENTS} - {722, 2244}
    assert found[312].patient == found[570].patient and {record.part for record in found.values()} == {None}
    assert {number for number, record in found.items() if record.group == "negative"} == {4, 7, 10, 11}
    assert {number for number, record in found.items() if record.group == "unknown"} == {5}
    [source] = open_shards(out).sources
    assert "Weak labels" in source.text and source.licence == "none stated"
    assert ("by Otsu's threshold" in source.text) == (boxes == "masks")
    pixels = found[8].metastatic_pixels
    patient = next(patient for patient in PATIENTS if patient.number == 8)
    drawn = sum(np.count_nonzero(mask(patient, view) == 2) for view in ("anterior", "posterior")) / 16
    assert pixels > 2 * drawn if boxes == "rectangles" else 0.3 * drawn < pixels < 3 * drawn


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<annotation>", "label-file"),
        ("<a><object><name>Cold</name></object></a>", "label-unknown"),
        ("<a><size><height>512</height><width>256</width></size></a>", "label-frame"),
        ("<a><object><name>Normal</name><bndbox><xmin>9</xmin></bndbox></object></a>", "label-file"),
        (
            "<a><object><name>Normal</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>300</xmax><ymax>20</ymax>"
            "</bndbox></object></a>",
            "label-frame",
        ),
    ],
)
def test_damaged_boxes_are_refused(tmp_path, text, reason):
    (tmp_path / "1.xml").write_text(text)
    with pytest.raises(LabelError, match=r"1\.xml: ") as caught:
        read_boxes(tmp_path / "1.xml")
    assert caught.value.reason == reason


@pytest.fixture(scope="module")
def skeletons(archives, tmp_path_factory):
    root = tmp_path_factory.mktemp("skeletons")
    folder, out = write_skeletons(root / "archive"), root / "shards"
    arguments = ["--dataset", "bs80k-skeleton", "--scans", str(archives[0]), "--labels", str(folder), "--out", str(out)]
    assert main(["prepare", *arguments, "--bin", "4"]) == 0
    return folder, out


def test_skeletons_of_both_views_keep_the_part_in_which_they_are_tested(skeletons):
    found = by_number(skeletons[1])
    assert {number for number, record in found.items() if record.part == "test"} == {3, 8, 9, 10, 570, 828}
    assert found[1].part == "train" and 11 not in found and found[1].has_regions
    dataset = open_shards(skeletons[1])
    index = [case.case for case in dataset.cases].index(found[1].case)
    anterior, posterior = np.hsplit(dataset.regions(index), 2)
    # The others lie below the last row of the image.
    assert set(np.unique(anterior)) >= set(range(1, 9)) and 5 not in posterior
    assert dataset.sources[0].licence == "CC BY-SA 4.0"


def test_index_masks_in_another_order_are_refused(skeletons, tmp_path):
    with Image.open(skeletons[0] / "masks" / "anterior" / "1.png") as image:
        palette = np.reshape(image.getpalette(), (-1, 3))
        palette[1:3] = palette[2:0:-1].copy()
        image.putpalette(palette.ravel().tolist())
        image.save(tmp_path / "1.png")
    with pytest.raises(LabelError, match="its colours are those of other regions"):
        PublicLabels(skeleton, {"anterior": tmp_path / "1.png"}).read(None)


@pytest.mark.slow
def test_from_folder_to_report_in_two_commands(bs80k_shards, tmp_path, monkeypatch, capsys):
    from intensity_run import intensity_model

    monkeypatch.setattr(
        "doubleunet_bs.training.build_network.double_unet", lambda shape, *args, **kwargs: intensity_model(*shape[:2])
    )
    run = tmp_path / "run"
    train = [
        "train",
        "--data",
        str(bs80k_shards),
        "--run",
        str(run),
        "--experiment",
        "focal-tversky-otsu",
        "--fold",
        "1",
    ]
    assert main([*train, "--epochs", "1", "--batch-size", "2", "--encoder-weights", "none"]) == 0
    assert "in the published split" in capsys.readouterr().out
    assert main(["evaluate", str(run)]) == 0
    said = capsys.readouterr().out
    scores = read_json(run / "fold_01" / "scores.json", DatasetError, "scores")
    assert len(scores["scans"]) == 4 and len(scores["normals"]["scans"]) == 1
    card = (run / "fold_01" / "saved_model" / "model_card.md").read_text()
    for text in (said, (run / "report.html").read_text(), card, (run / "experiment.json").read_text()):
        assert "CC BY 4.0" in text and "Weak labels" in text and "zenodo.23190333" in text


@pytest.mark.slow
def test_skeletons_from_folder_to_report(skeletons, tmp_path, monkeypatch):
    from intensity_run import region_model

    def regions(shape, classes, *args, **kwargs):
        assert classes == 13
        return region_model(*shape[:2], 1)

    monkeypatch.setattr("doubleunet_bs.training.build_network.double_unet", regions)
    run = tmp_path / "run"
    train = ["train", "--data", str(skeletons[1]), "--run", str(run), "--experiment", "skeleton", "--fold", "1"]
    assert main([*train, "--epochs", "1", "--encoder-weights", "none"]) == 0
    assert main(["evaluate", str(run)]) == 0
    card = (run / "fold_01" / "saved_model" / "model_card.md").read_text()
    for text in ((run / "report.html").read_text(), card):
        assert "CC BY-SA 4.0" in text and "zenodo.20342310" in text
