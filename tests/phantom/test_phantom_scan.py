"""The synthetic scan: calibration bands, noise, geometry of the two views, lesions and what imitates them."""

import hashlib

import cv2
import numpy as np
import pytest

from doubleunet_bs.constants import METASTATIC
from doubleunet_bs.errors import SettingsError
from doubleunet_bs.phantom import make_phantom
from doubleunet_bs.phantom import scan as scan_module
from doubleunet_bs.phantom.benign import draw_benign
from doubleunet_bs.phantom.metastases import MOST_LESIONS, Focus, blob, draw_metastases
from doubleunet_bs.phantom.patient import draw_patient, pose_skeleton, template_skeleton

VIEWS = ("anterior", "posterior")


@pytest.fixture(scope="module")
def cohort():
    """Six breast and four prostate scans, three of them without metastases."""
    return [make_phantom(0, k, "breast" if k < 6 else "prostate", k % 4 != 3 and k != 8) for k in range(10)]


@pytest.fixture(scope="module")
def normal(cohort):
    return [scan for scan in cohort if not scan.metastatic]


def counts(scan, view):
    return getattr(scan, view).astype(float)


def body(scan):
    """Where the smoothed anterior view stands out from the room's background."""
    smooth = cv2.GaussianBlur(counts(scan, "anterior"), (0, 0), 3)
    return smooth > max(0.08 * np.percentile(smooth, 95), 2 * scan.acquisition.background)


def digest(scan):
    parts = (scan.anterior, scan.posterior, scan.lesions["anterior"], scan.regions()["posterior"])
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:16]


def test_views_are_counts_of_the_raw_geometry(cohort):
    for scan in cohort:
        for view in VIEWS:
            assert getattr(scan, view).shape == (1024, 256) and getattr(scan, view).dtype == np.uint16
            assert scan.lesions[view].shape == (1024, 256) and scan.lesions[view].dtype == np.uint8
            assert set(np.unique(scan.lesions[view])) <= {0, METASTATIC}
        assert scan.total_counts == int(counts(scan, "anterior").sum() + counts(scan, "posterior").sum())
        assert 2.26 <= scan.pixel_spacing_mm[0] == scan.pixel_spacing_mm[1] <= 2.40


def test_counts_lie_in_the_bands_of_real_scans(cohort):
    for scan in cohort:
        anterior, posterior = counts(scan, "anterior"), counts(scan, "posterior")
        inside = body(scan)
        assert 0.4e6 <= anterior.sum() <= 5.6e6
        assert 0.81 <= posterior.sum() / anterior.sum() <= 1.02
        assert 3.5 <= anterior[inside].mean() <= 95
        assert 14 <= np.percentile(anterior[inside], 99) <= 276
        assert 36 <= anterior.max() <= 19_500
        assert 0.05 <= scan.acquisition.background <= 0.6
    fast = [s for s in cohort if s.acquisition.speed >= 18]
    slow = [s for s in cohort if s.acquisition.speed <= 12]
    assert fast and slow
    assert np.mean([s.acquisition.counts for s in fast]) < 0.6 * np.mean([s.acquisition.counts for s in slow])


def test_the_body_has_the_size_of_real_ones(cohort):
    for scan in cohort:
        inside = body(scan)
        rows = np.flatnonzero(inside.sum(axis=1) > 5)
        assert 640 <= rows[-1] - rows[0] + 1 <= 775
        assert 0.21 <= inside.mean() <= 0.45
        assert rows[0] > 20 and rows[-1] < 1010


def test_bone_stands_out_of_soft_tissue_about_threefold(normal):
    ratios = []
    for scan in normal:
        bones = pose_skeleton(template_skeleton(), scan.patient)
        image = scan.mean["posterior"][:, ::-1]

        def at(point, image=image, bones=bones, camera=scan.acquisition.camera):
            row, column = (int(value[0]) for value in camera.pixels(bones.at(point)[None]))
            return image[row - 1 : row + 2, column - 1 : column + 2].mean()

        lumbar = np.median([at((0, y, 0)) for y in (53.4, 56.3, 59.0)])
        ratios.append(lumbar / np.mean([at((x, 57.5, 0)) for x in (-10, 10)]))
    assert 2.2 <= np.median(ratios) <= 4.5


def test_attenuation_puts_the_sternum_in_front_and_the_spine_behind(normal):
    spine_ratio, sternum_ratio = [], []
    for scan in normal:
        bones = pose_skeleton(template_skeleton(), scan.patient)

        def at(point, view, bones=bones, scan=scan):
            row, column = (int(value[0]) for value in scan.acquisition.camera.pixels(bones.at(point)[None]))
            image = scan.mean[view] if view == "anterior" else scan.mean[view][:, ::-1]
            return image[row - 1 : row + 2, column - 1 : column + 2].mean()

        def behind_to_front(point, at=at):
            flank = (10.0, 56.3, 0)
            return at(point, "posterior") / at(flank, "posterior") * at(flank, "anterior") / at(point, "anterior")

        spine_ratio.append(behind_to_front((0, 56.3, 0)))
        sternum_ratio.append(behind_to_front((2.4, 30.0, 7.5)))
    assert min(spine_ratio) > 1.3 and np.median(sternum_ratio) < 0.8


def test_noise_is_white_poisson_noise(cohort):
    for scan in cohort[:6]:
        for view in VIEWS:
            mean = scan.mean[view].astype(float)
            seen = (mean > 2) & (mean < 300)
            residual = np.where(seen, (counts(scan, view) - mean) / np.sqrt(np.maximum(mean, 1e-6)), 0)
            assert (residual**2).sum() / seen.sum() == pytest.approx(1.0, abs=0.03)
            for shifted, both in (
                (residual[:, 1:] * residual[:, :-1], seen[:, 1:] & seen[:, :-1]),
                (residual[1:] * residual[:-1], seen[1:] & seen[:-1]),
            ):
                assert abs(shifted[both].mean()) < 0.025


def test_nothing_is_counted_outside_the_field_of_view(cohort):
    for scan in cohort:
        left, right = scan.acquisition.camera.field_columns
        top, bottom = scan.acquisition.camera.field_rows
        assert left == 256 - right and left > 0
        for view in VIEWS:
            outside = np.ones((1024, 256), bool)
            outside[top:bottom, left:right] = False
            assert not getattr(scan, view)[outside].any() and not scan.lesions[view][outside].any()


def test_the_posterior_view_is_stored_as_seen_from_behind(cohort):
    for scan in cohort:
        small = [cv2.resize(np.log1p(counts(scan, view)), (64, 256), interpolation=cv2.INTER_AREA) for view in VIEWS]
        mirrored = np.corrcoef(small[0].ravel(), small[1][:, ::-1].ravel())[0, 1]
        assert mirrored > 0.85 and mirrored > np.corrcoef(small[0].ravel(), small[1].ravel())[0, 1]


def test_a_left_sided_lesion_is_right_in_front_and_left_behind(monkeypatch):
    """A patient faces the viewer in the anterior view, and is seen from behind in the posterior one."""

    def one_rib_lesion(rng, bones, cancer):
        return [Focus("rib_L7", *blob(rng, bones.on_rod("rib_L7", 0.5), 10), 5.0)]

    monkeypatch.setattr(scan_module, "draw_metastases", one_rib_lesion)
    scan = make_phantom(21, 0)
    assert [focus.site for focus in scan.metastases] == ["rib_L7"]
    columns = {view: np.nonzero(scan.lesions[view])[1] for view in VIEWS}
    middle = scan.acquisition.camera.middle_column
    assert columns["anterior"].min() > middle + 20 and columns["posterior"].max() < 255 - middle - 20
    assert columns["posterior"].mean() == pytest.approx(255 - columns["anterior"].mean(), abs=2)


def test_same_arguments_same_scan_and_nothing_else(cohort):
    assert digest(make_phantom(0, 2)) == digest(cohort[2])
    for other in (cohort[1], make_phantom(1, 2)):
        assert other.anterior.tobytes() != cohort[2].anterior.tobytes()


def test_a_repeated_scan_is_the_same_patient_elsewhere_with_new_noise(cohort):
    first, second, third = cohort[2], make_phantom(0, 2, repeat=1), make_phantom(0, 2, repeat=2)
    assert first.patient.uptake == second.patient.uptake and first.involved == second.involved
    assert [focus.site for focus in first.metastases] == [focus.site for focus in second.metastases]
    cameras = [scan.acquisition.camera for scan in (first, second, third)]
    shift = [(one.top_row - cameras[0].top_row, one.middle_column - cameras[0].middle_column) for one in cameras[1:]]
    assert all(0 < abs(value) < 20 for pair in shift for value in pair) and shift[0] != shift[1]
    middles = [np.average(np.arange(1024), weights=scan.anterior.sum(axis=1)) for scan in (first, second)]
    assert middles[1] - middles[0] == pytest.approx(shift[0][0], abs=1)
    # The same expectation, so that only noise and position differ.
    assert second.total_counts == pytest.approx(first.total_counts, rel=0.01)
    assert make_phantom(0, 2, repeat=1).anterior.tobytes() == second.anterior.tobytes()


@pytest.mark.slow
def test_varied_phantoms_leave_the_usual_ranges():
    usual = [make_phantom(5, k, metastatic=False) for k in range(4)]
    varied = [make_phantom(5, k, metastatic=False, varied=True) for k in range(4)]
    assert digest(varied[0]) == digest(make_phantom(5, 0, metastatic=False, varied=True)) != digest(usual[0])

    def spread(scans, figure):
        return np.std([figure(scan) for scan in scans])

    for figure in (
        lambda scan: scan.pixel_spacing_mm[0],
        lambda scan: scan.acquisition.camera.blur,
        lambda scan: scan.acquisition.posterior_share,
        lambda scan: scan.patient.joints["elbow_L"],
        lambda scan: np.log(scan.patient.soft_tissue),
        lambda scan: np.log(scan.patient.uptake["L3"]),
    ):
        assert spread(varied, figure) > 1.5 * spread(usual, figure)
    for scan in varied:
        assert 0.2e6 < scan.total_counts < 10e6
        for view in VIEWS:
            # The skeleton is where its regions are drawn, and head, trunk and hips are inside the image.
            regions = scan.regions()[view]
            assert {1, 3, 4, 9, 10, 11, 12} <= set(np.unique(regions).tolist())
            assert scan.mean[view][regions > 0].mean() > 1.3 * scan.mean[view].mean()


def test_normal_scans_have_no_lesions_but_what_imitates_them(normal):
    assert len(normal) == 3
    for scan in normal:
        assert not scan.metastases and not any(scan.lesions[view].any() for view in VIEWS)
    skeleton, rng = template_skeleton(), np.random.default_rng(0)
    benign = [focus for scan in normal for focus in draw_benign(rng, pose_skeleton(skeleton, scan.patient))]
    assert len(benign) >= 3 and all(focus.contrast > 1 and not len(focus.involved) for focus in benign)


def test_metastatic_scans_show_something_in_some_view(cohort):
    for scan in cohort:
        if scan.metastatic:
            assert any(scan.lesions[view].any() for view in VIEWS)
            assert scan.metastases and all(focus.contrast >= 1.5 for focus in scan.metastases)


def test_the_same_patient_without_metastases_differs_only_by_them(cohort):
    sick, well = cohort[1], make_phantom(0, 1, metastatic=False)
    for view in VIEWS:
        # Lesions take their share of the tracer: the rest of the body is the same but for one factor.
        ratio = sick.mean[view][well.mean[view] > 1] / well.mean[view][well.mean[view] > 1]
        factor = np.median(ratio)
        assert 0.8 < factor <= 1.0 and np.percentile(ratio, 1) > 0.97 * factor
        outlined = sick.lesions[view] > 0
        if outlined.any():
            # An outline stands out: at least a fifth more than the same pixels without the lesion.
            assert (sick.mean[view][outlined] / (factor * well.mean[view][outlined])).min() > 1.18


def test_one_threshold_does_not_find_the_lesions(cohort):
    true, false = np.zeros(4096), np.zeros(4096)
    for scan in cohort:
        both = np.hstack([counts(scan, view) for view in VIEWS])
        level = np.minimum(both / both.mean() * 160, 4095).astype(int)
        outlined = np.hstack([scan.lesions[view] for view in VIEWS]) > 0
        true += np.bincount(level[outlined], minlength=4096)[::-1].cumsum()[::-1]
        false += np.bincount(level[~outlined], minlength=4096)[::-1].cumsum()[::-1]
    f1 = 2 * true / (true + false + true[0])
    assert 0.03 < f1.max() < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("cancer", ["breast", "prostate"])
def test_number_and_sites_of_lesions(cancer):
    rng = np.random.default_rng(0)
    skeleton = template_skeleton()
    bones = pose_skeleton(skeleton, draw_patient(rng, skeleton, cancer))
    draws = [draw_metastases(rng, bones, cancer) for _ in range(120)]
    numbers = np.array([len(draw) for draw in draws])
    assert 3 <= np.median(numbers) <= 5 and np.percentile(numbers, 95) >= 12
    assert numbers.min() >= 1 and numbers.max() <= MOST_LESIONS
    sites = [focus.site for draw in draws for focus in draw]
    contrasts = np.array([focus.contrast for draw in draws for focus in draw])
    assert contrasts.min() >= 1.9 and contrasts.max() <= 6

    def share(*stems):
        return np.mean([site.split("_")[0] in stems for site in sites])

    spine = np.mean([site[0] in "CTL" and site[1:].isdigit() for site in sites])
    lumbar = np.mean([site[0] == "L" and site[1:].isdigit() for site in sites])
    pelvis = share("ilium", "sacrum", "si", "pubis", "ischium", "acetabulum")
    ribs, breastbone = share("rib"), share("manubrium", "sternum")
    if cancer == "breast":
        assert spine > pelvis > ribs > breastbone > 0.02
        assert 0.03 <= share("skull") <= 0.10
    else:
        assert pelvis + lumbar > 0.5 and ribs < 0.15


@pytest.mark.parametrize("wrong", [
    {"seed": -1}, {"seed": 1.5}, {"seed": 0, "index": -2}, {"seed": 0, "cancer": "lung"}, {"seed": "a"},
    {"seed": 0, "repeat": -1},
])  # fmt: skip
def test_wrong_arguments_are_refused(wrong):
    with pytest.raises(SettingsError):
        make_phantom(**wrong)
