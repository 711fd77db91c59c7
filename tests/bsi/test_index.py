"""The Bone Scan Index on masks small enough to count by hand."""

import numpy as np
import pytest

from doubleunet_bs.bsi import REGIONS, WEIGHT_TABLES, WeightTable, bone_scan_index, choose_table, region_number
from doubleunet_bs.bsi.regions import without_posterior_sternum
from doubleunet_bs.errors import LabelError, SettingsError

FEMALE = WEIGHT_TABLES["icrp110-female"]
SPACING = (2.0, 2.0)


def views(anterior, posterior):
    return {"anterior": np.array(anterior, np.uint8), "posterior": np.array(posterior, np.uint8)}


def bools(masks):
    return {view: mask.astype(bool) for view, mask in masks.items()}


# Skull: 4 pixels in front, of which 1 is metastatic, and 6 behind, of which 2 are. Sternum: 1 of 2, in front only.
REGION_MASKS = views([[1, 1, 1, 1, 0, 5, 5, 0]] * 1, [[1, 1, 1, 1, 1, 1, 0, 0]])
LESION_MASKS = bools(views([[1, 0, 0, 0, 0, 1, 0, 0]], [[1, 1, 0, 0, 0, 0, 0, 0]]))


@pytest.mark.parametrize("estimator, skull", [("pooled", 3 / 10), ("mean", (1 / 4 + 2 / 6) / 2), ("maximum", 2 / 6)])
def test_estimators_by_hand(estimator, skull):
    found = bone_scan_index(LESION_MASKS, REGION_MASKS, FEMALE, SPACING, estimator=estimator)
    assert found.value == pytest.approx(12.66 * skull + 0.69 * 1 / 2, abs=1e-12)
    assert found.views["anterior"] == pytest.approx(12.66 / 4 + 0.69 / 2, abs=1e-12)
    assert found.views["posterior"] == pytest.approx(12.66 * 2 / 6, abs=1e-12)
    first, sternum = found.regions[0], found.regions[4]
    assert (first.name, first.metastatic, first.pixels) == (
        "skull",
        {"anterior": 1, "posterior": 2},
        {"anterior": 4, "posterior": 6},
    )
    assert first.fraction == pytest.approx(skull, abs=1e-12) and sternum.fraction == 0.5
    assert found.regions[11].fraction is None and found.regions[11].index == 0
    assert (found.table, found.estimator) == ("icrp110-female", estimator)
    assert sum(share.index for share in found.regions) == pytest.approx(found.value, abs=1e-12)
    assert "femora" in next(line for line in found.warnings if "no view shows" in line)


def test_all_of_every_region_is_the_sum_of_the_table():
    everything = views([list(range(13))], [[0 if k == 5 else k for k in range(13)]])
    found = bone_scan_index(bools(everything), everything, FEMALE, SPACING)
    assert found.value == pytest.approx(FEMALE.total, abs=1e-12)
    none = {view: np.zeros((1, 13), bool) for view in everything}
    assert bone_scan_index(none, everything, FEMALE, SPACING).value == 0


def test_pixels_outside_of_all_regions_count_for_the_nearest_one_within_10_mm():
    # At 2 mm a pixel, columns 4 to 8 are 2 to 10 mm from the skull, column 9 is 12 mm away.
    regions = {"anterior": np.array([[1, 1, 1, 1] + [0] * 8], np.uint8)}
    for column, counts in ((4, True), (8, True), (9, False)):
        lesion = {"anterior": np.arange(12)[None] == column}
        found = bone_scan_index(lesion, regions, FEMALE, SPACING)
        assert found.value == pytest.approx(12.66 / 4 if counts else 0, abs=1e-12), column
        assert (found.assigned["anterior"], found.outside["anterior"]) == ((1, 0) if counts else (0, 1))
        assert any("belong to no region" in line for line in found.warnings) is not counts
    # Without a spacing nobody knows how far 10 mm are.
    unknown = bone_scan_index({"anterior": np.arange(12)[None] == 4}, regions, FEMALE)
    assert unknown.value == 0 and unknown.outside["anterior"] == 1
    assert any("no pixel spacing" in line for line in unknown.warnings)


def test_the_nearest_region_is_measured_in_millimetres_and_not_in_pixels():
    # One row of 9 mm above lies the skull; three columns of 2 mm to the right the ribs.
    regions = {"anterior": np.array([[1, 0, 0, 0], [0, 0, 0, 4]], np.uint8)}
    lesion = {"anterior": np.array([[0, 0, 0, 0], [1, 0, 0, 0]], bool)}
    found = bone_scan_index(lesion, regions, FEMALE, (9.0, 2.0))
    assert found.value == pytest.approx(5.93, abs=1e-12) and found.regions[3].fraction == 1
    assert bone_scan_index(lesion, regions, FEMALE, (2.0, 9.0)).regions[0].fraction == 1


def test_more_assigned_pixels_than_a_region_has_are_all_of_it():
    regions = {"anterior": np.array([[1, 0, 0, 0]], np.uint8)}
    found = bone_scan_index({"anterior": np.ones((1, 4), bool)}, regions, FEMALE, SPACING)
    assert found.value == pytest.approx(12.66, abs=1e-12) and found.regions[0].metastatic == {"anterior": 4}


def test_a_missing_view_is_said_and_the_other_one_counts():
    only = {"posterior": LESION_MASKS["posterior"]}, {"posterior": REGION_MASKS["posterior"]}
    found = bone_scan_index(*only, FEMALE, SPACING)
    assert found.value == pytest.approx(12.66 * 2 / 6, abs=1e-12) == found.views["posterior"]
    assert found.warnings[0].startswith("the anterior view is missing")


def test_femora_count_only_where_lesions_were_looked_for():
    regions = {"anterior": np.full((10, 1), 12, np.uint8)}
    lesion = {"anterior": np.arange(10)[:, None] == 2}
    cut = bone_scan_index(lesion, regions, FEMALE, SPACING, segmented_rows={"anterior": (0, 4)})
    assert cut.value == pytest.approx(13.71 / 4, abs=1e-12)
    assert any(line.startswith("of the femora only the part") for line in cut.warnings)
    regions["anterior"][-1] = 0
    whole = bone_scan_index(lesion, regions, FEMALE, SPACING)
    assert whole.value == pytest.approx(13.71 / 9, abs=1e-12)
    assert not any("femora" in line and "part" in line for line in whole.warnings)
    # Rows of a crop that begins above the view.
    above = bone_scan_index(lesion, regions, FEMALE, SPACING, segmented_rows={"anterior": (-3, 5)})
    assert above.value == pytest.approx(13.71 / 5, abs=1e-12)


def test_weights_are_those_of_the_tables():
    sums = {name: round(table.total, 1) for name, table in WEIGHT_TABLES.items()}
    assert sums == {"icrp110-male": 72.1, "icrp110-female": 69.2, "spiers1968": 67.3}
    # Grams of ICRP 110, male and female: cranium and mandible, pelvis, both femora.
    for name, total, grams in (
        ("icrp110-male", 10304.7, {"skull": 1013.9 + 150.0, "pelvis": 1079.8, "femora": 759.5 + 813.5}),
        ("icrp110-female", 7109.6, {"skull": 820.7 + 79.6, "pelvis": 704.9, "femora": 512.3 + 462.6}),
    ):
        for region, mass in grams.items():
            assert WEIGHT_TABLES[name].percent[region] == pytest.approx(100 * mass / total, abs=0.006)
    assert WEIGHT_TABLES["spiers1968"].percent["skull"] == pytest.approx(16.6 + 1.8)


def test_the_table_is_chosen_by_name_or_by_sex():
    assert choose_table("spiers1968", "M") == (WEIGHT_TABLES["spiers1968"], "chosen")
    assert choose_table(sex="F")[0].name == "icrp110-female" and choose_table(sex="M")[0].name == "icrp110-male"
    table, reason = choose_table(sex="")
    assert table.name == "icrp110-female" and "does not give the sex" in reason
    with pytest.raises(SettingsError, match="no weight table 'mine'"):
        choose_table("mine")


@pytest.mark.parametrize(
    "change", [{"sacrum": None}, {"tail": 1.0}, {"ribs": -1.0}, {"ribs": float("nan")}, {"ribs": "5"}, {"ribs": 60.0}]
)
def test_a_wrong_weight_table_is_refused(change):
    percent = {**FEMALE.percent, **change}
    with pytest.raises(SettingsError, match="weight table mine: give each of the 12 regions a weight above 0"):
        WeightTable("mine", {name: value for name, value in percent.items() if value is not None})


def test_wrong_masks_are_refused():
    thirteen = {**REGION_MASKS, "anterior": np.full((1, 8), 13, np.uint8)}
    sternum = {**REGION_MASKS, "posterior": np.full((1, 8), 5, np.uint8)}
    wider = {**REGION_MASKS, "anterior": np.ones((1, 9), np.uint8)}
    signed = {**REGION_MASKS, "anterior": np.ones((1, 8), np.int64)}
    for regions, message in (
        (thirteen, "holds number 13"),
        (sternum, "not seen from behind"),
        (wider, r"(1, 8).*(1, 9).*draw both in the same views"),
        (signed, "must be a uint8"),
        ({"anterior": REGION_MASKS["anterior"]}, "draw both in the same views"),
        ({**REGION_MASKS, "lateral": thirteen["anterior"]}, "named 'lateral'"),
    ):
        with pytest.raises(LabelError, match=message):
            bone_scan_index(LESION_MASKS, regions, FEMALE, SPACING)
    # Class numbers would count every non-metastatic pixel.
    classes = {view: mask.astype(np.uint8) for view, mask in LESION_MASKS.items()}
    with pytest.raises(LabelError, match="labels == METASTATIC"):
        bone_scan_index(classes, REGION_MASKS, FEMALE, SPACING)
    with pytest.raises(LabelError, match="draw both in the same views"):
        bone_scan_index({}, {}, FEMALE)
    with pytest.raises(SettingsError, match="no estimator"):
        bone_scan_index(LESION_MASKS, REGION_MASKS, FEMALE, SPACING, estimator="best")
    for spacing in ((0.0, 2.0), 2.0, (2.0, 2.0, 2.0), (2.0, float("nan"))):
        with pytest.raises(SettingsError, match="pixel spacing"):
            bone_scan_index(LESION_MASKS, REGION_MASKS, FEMALE, spacing)
    for table in ("icrp110-female", choose_table(sex="F")):
        with pytest.raises(SettingsError, match="table is a (str|tuple): give .* the first value of choose_table"):
            bone_scan_index(LESION_MASKS, REGION_MASKS, table)


def test_names_of_regions():
    assert [region.number for region in REGIONS] == list(range(1, 13))
    assert [region_number(name) for name in ("skull", " Ribs ", "collarbone", "FEMUR", "lumbar")] == [1, 4, 6, 12, 9]
    with pytest.raises(LabelError, match="no region is called 'coccyx'"):
        region_number("coccyx")


def test_a_predicted_sternum_is_kept_in_front_and_not_bone_behind():
    predicted = {view: np.array([[5, 3, 5]], np.uint8) for view in ("anterior", "posterior")}
    kept, pixels = without_posterior_sternum(predicted)
    assert pixels == 2 and kept["posterior"].tolist() == [[0, 3, 0]] and kept["anterior"].tolist() == [[5, 3, 5]]
    assert predicted["posterior"].tolist() == [[5, 3, 5]], "the prediction itself stays"
    assert without_posterior_sternum({"anterior": predicted["anterior"]})[1] == 0
