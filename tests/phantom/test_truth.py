"""The truth about a phantom's skeleton: region masks, involved fractions, cohorts with a wanted Bone Scan Index."""

import csv

import numpy as np
import pytest
from PIL import Image

from doubleunet_bs.bsi import REGIONS, WEIGHT_TABLES, bone_scan_index, check_regions, choose_table, region_number
from doubleunet_bs.errors import SettingsError
from doubleunet_bs.phantom import make_cohort, make_phantom
from doubleunet_bs.phantom.cohort import wanted_indices
from doubleunet_bs.phantom.metastases import _ball, draw_extent
from doubleunet_bs.phantom.patient import pose_skeleton, template_skeleton
from doubleunet_bs.phantom.truth import involved_fractions, region_of_points, true_index, weight_of_points

FEMALE = WEIGHT_TABLES["icrp110-female"]


@pytest.fixture(scope="module")
def scan():
    return make_phantom(3, 0)


@pytest.fixture(scope="module")
def bones(scan):
    return pose_skeleton(template_skeleton(), scan.patient)


def middle(mask, name):
    rows, columns = np.nonzero(mask == region_number(name))
    return rows.mean(), columns.mean()


def test_every_bone_has_its_region():
    skeleton = template_skeleton()
    regions = region_of_points()
    for bone, name in (("T7", "thoracic spine"), ("mandible", "skull"), ("rib_R12", "ribs"), ("si_L", "pelvis")):
        assert set(regions[skeleton.bones[bone]]) == {region_number(name)}
    for bone in ("forearm_L", "hand_R", "shank_L", "foot_R"):
        assert not regions[skeleton.bones[bone]].any()
    # The femur ends at the joint line, 114.6 cm below the vertex.
    knee = skeleton.cloud.xyz[skeleton.bones["knee_L"]]
    assert set(regions[skeleton.bones["knee_L"]][knee[:, 1] > 114.6]) == {0}
    assert region_number("femora") in regions[skeleton.bones["knee_L"]]


def test_involved_fraction_is_a_share_of_bone_mass_and_not_of_uptake():
    skeleton = template_skeleton()
    involved = np.zeros(len(skeleton.cloud), bool)
    assert set(involved_fractions(involved).values()) == {0.0}
    involved[skeleton.bones["sternum_body"]] = True
    mass = {name: skeleton.cloud.mass[skeleton.bones[name]].sum() for name in ("manubrium", "sternum_body")}
    fractions = involved_fractions(involved)
    assert fractions["sternum"] == pytest.approx(mass["sternum_body"] / sum(mass.values()), rel=1e-6)
    assert true_index(fractions, FEMALE) == pytest.approx(0.69 * fractions["sternum"], abs=1e-12)
    assert weight_of_points(FEMALE)[involved].sum() == pytest.approx(0.69 * fractions["sternum"], abs=1e-9)
    everything = involved_fractions(np.ones(len(skeleton.cloud), bool))
    assert true_index(everything, FEMALE) == pytest.approx(FEMALE.total, abs=1e-9)


def test_bone_within_half_the_width_of_a_ball_is_involved(bones):
    centre = bones.vertebral_body("L3")
    *_, involved = _ball(np.random.default_rng(0), bones, centre, 20.0)
    inside = np.linalg.norm(bones.xyz - centre, axis=1) <= 1.0
    assert inside.sum() > 20 and set(involved) == set(np.flatnonzero(inside))


@pytest.mark.parametrize("wanted", [0.1, 1.0, 13.0, 20.0])
def test_the_wanted_index_is_hit(bones, wanted):
    for cancer, seed in (("breast", 0), ("prostate", 1)):
        foci = draw_extent(np.random.default_rng(seed), bones, cancer, wanted, weight_of_points(FEMALE))
        involved = np.zeros(len(bones.xyz), bool)
        for focus in foci:
            involved[focus.involved] = True
        # To one point of a bone.
        index = true_index(involved_fractions(involved), FEMALE)
        assert wanted - 1e-6 <= index <= wanted + 1.01 * weight_of_points(FEMALE).max()
        assert len(foci) < 400


def test_a_scan_has_the_wanted_index_and_shows_it():
    scan = make_phantom(5, 1, wanted_index=4.0)
    table, _ = choose_table(sex=scan.patient.sex)
    assert scan.true_index(table) == pytest.approx(4.0, abs=0.01)
    lesions = {view: mask > 0 for view, mask in scan.lesions.items()}
    measured = bone_scan_index(lesions, scan.regions(), table, scan.pixel_spacing_mm)
    assert 2 < measured.value < 8 and sum(measured.outside.values()) < 20
    for wrong in (0, -1.0, 20.1, float("nan")):
        with pytest.raises(SettingsError, match="a BSI of"):
            make_phantom(5, 1, wanted_index=wrong)
    with pytest.raises(SettingsError, match="with metastases"):
        make_phantom(5, 1, metastatic=False, wanted_index=1.0)


def test_normal_scans_have_no_index_and_the_same_regions(scan):
    well = make_phantom(3, 0, metastatic=False)
    assert set(well.involved.values()) == {0.0} and max(scan.involved.values()) > 0
    for view in ("anterior", "posterior"):
        assert np.array_equal(scan.regions()[view], well.regions()[view])


def test_region_masks_are_those_of_an_upright_person(scan):
    masks = scan.regions()
    check_regions(masks)
    anterior, posterior = masks["anterior"], masks["posterior"]
    assert set(np.unique(anterior)) == set(range(13))
    assert set(range(13)) - set(np.unique(posterior)) == {region_number("sternum")}
    for mask in masks.values():
        rows = [
            middle(mask, name)[0]
            for name in ("skull", "cervical spine", "thoracic spine", "lumbar spine", "sacrum", "femora")
        ]
        assert rows == sorted(rows)
        # Paired bones lie on both sides of the spine, with about as many pixels.
        column = middle(mask, "thoracic spine")[1]
        for name in ("ribs", "scapulae", "humeri", "pelvis", "femora"):
            columns = np.nonzero(mask == region_number(name))[1]
            assert 0.35 < (columns < column).mean() < 0.65, name
    # In front the breastbone hides the spine, behind the shoulder blades hide ribs.
    for name, low, high in (("thoracic spine", 1.3, 9), ("scapulae", 1.5, 9), ("clavicles", 0, 0.8)):
        number = region_number(name)
        assert low < (posterior == number).sum() / (anterior == number).sum() < high, name


def test_vertebrae_and_hips_lie_in_their_regions(scan, bones):
    places = [(bones.vertebral_body(f"{k}{n}"), name) for k, n, name in (
        ("C", 5, "cervical spine"), ("T", 12, "thoracic spine"), ("L", 3, "lumbar spine"))]  # fmt: skip
    places += [(bones.on_rod(f"rib_{side}6", 0.4), "ribs") for side in "LR"]
    places += [(bones.at((12.0, 64.0, 0)), "pelvis"), (bones.at((-12.0, 64.0, 0)), "pelvis")]
    regions = scan.regions()
    for point, name in places:
        row, column = (int(value[0]) for value in scan.acquisition.camera.pixels(point[None]))
        assert regions["anterior"][row, column] == region_number(name), name
        assert regions["posterior"][row, 255 - column] == region_number(name), name


def test_a_cohort_holds_regions_and_truth(tmp_path):
    # On a logarithmic scale, among scans with metastases.
    assert wanted_indices((0.5, 2.0), [True, True, False, True]) == pytest.approx([0.5, 1.0, None, 2.0])
    folder = make_cohort(tmp_path / "out", 3, seed=6, positive_fraction=0.6, wanted_index=(0.5, 2.0))
    with open(folder / "truth.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    last = make_phantom(6, 1, wanted_index=2.0)
    table = choose_table(sex=last.patient.sex)[0].name
    assert [round(float(row[f"bsi {table}"]), 2) for row in rows[:2]] == [0.5, 2.0]
    assert [row["scan"] for row in rows] == [f"phantom_000{k}" for k in (1, 2, 3)]
    assert {float(value) for name, value in rows[2].items() if name != "scan"} == {0.0}
    for row in rows:
        shares = {region.name: float(row[f"fraction {region.name}"]) for region in REGIONS}
        for name, table in WEIGHT_TABLES.items():
            assert true_index(shares, table) == pytest.approx(float(row[f"bsi {name}"]), rel=1e-3, abs=1e-9)
    for view, mask in last.regions().items():
        image = Image.open(folder / "regions" / f"phantom_0002_{view}.png")
        assert image.mode == "P" and np.array_equal(np.array(image), mask)
    assert len(list((folder / "regions").iterdir())) == 6
