"""Numbers, names and outlines of the overlay, wherever they come to be."""

import dataclasses

import numpy as np
from handmade_prediction import lesions_of, make_prediction

from doubleunet_bs.bsi import REGIONS
from doubleunet_bs.bsi.regions import region_number
from doubleunet_bs.constants import VIEWS
from doubleunet_bs.display import enlarged, outline
from doubleunet_bs.findings.skeleton_result import find_index
from doubleunet_bs.inference.model_description import Member
from doubleunet_bs.results.overlay import CONTOUR, _free_place, overlay_picture, thumbnail, view_pictures
from doubleunet_bs.runs.experiments import paper_experiment


def test_a_number_is_never_cut_off(scan):
    """A lesion in the first rows, and one as wide as the view."""
    for box in ((0, 4, 120, 126), (0, 4, 0, 256), (300, 306, 0, 256)):
        mask = np.zeros((1024, 256), np.uint8)
        mask[box[0] : box[1], box[2] : box[3]] = 1
        prediction = make_prediction(scan, {"anterior": mask})
        # GDCM, which compresses it for an archive, ends the process at odd numbers.
        bare = overlay_picture(scan, prediction, (), view_pictures(scan))
        numbered = overlay_picture(scan, prediction, lesions_of(scan, prediction), view_pictures(scan))
        assert not any(length % 2 for length in bare.shape[:2])
        # The rows of the titles change as well.
        rows, columns = (numbered != bare).any(axis=2)[149:].nonzero()
        assert rows.max() - rows.min() >= 10 and columns.max() - columns.min() >= 4, box
        assert rows.min() > 1 and columns.min() >= 30, box


def test_numbers_of_crowded_areas_hide_nothing(scan):
    """A column of areas without room between them, and one area in the middle of others that gets no number."""
    mask = np.zeros((1024, 256), np.uint8)
    for row in range(300, 400, 8):
        mask[row : row + 7, 100:120] = 1
    mask[500:560, 100:160] = 1
    mask[520:540, 120:140] = 0
    mask[528:532, 128:132] = 1
    prediction = make_prediction(scan, {"anterior": mask})
    lesions = lesions_of(scan, prediction)
    taken = outline(mask, 2) | enlarged(mask == 1, 2)
    free = ~taken
    places = [_free_place(lesion, (0, 0), str(lesion.number), taken) for lesion in lesions]
    assert [place is None for place in places] == [False] * 14 + [True]
    drawn = np.zeros(taken.shape, int)
    for (x, y), lesion in zip(places[:-1], lesions, strict=False):
        drawn[y - 12 : y, x : x + 8 * len(str(lesion.number))] += 1
    assert drawn.max() == 1 and free[drawn > 0].all()


def test_the_longest_name_of_a_model_fits_the_overlay(scan):
    prediction = make_prediction(scan)
    members = tuple(Member(fold, f"{fold:064x}", 1, 0.5) for fold in range(1, 11))
    row = paper_experiment("focal-tversky-otsu-transfer-augmented", epochs=1).to_json()
    model = dataclasses.replace(
        prediction.model,
        experiment=row,
        fold=None,
        best_epoch=None,
        validation_f1=None,
        members=members,
        trained_on="mixed",
    )
    lesions = lesions_of(scan, prediction)
    picture = overlay_picture(scan, dataclasses.replace(prediction, model=model), lesions, view_pictures(scan))
    written = (picture[50:84] == CONTOUR).all(axis=-1).any(axis=0)
    # The line reaches far to the right, and ends where the views do.
    assert written[-200:-30].any() and not written[-30:].any()


def test_regions_are_named_thin_lines_below_the_outlines(scan):
    """The uptake between lines stays as it is, no line hides an outline, and warnings of the index are written."""
    regions = {view: np.full(scan.anterior.shape, region_number("ribs"), np.uint8) for view in VIEWS}
    prediction = make_prediction(scan)
    skeleton = find_index(scan, prediction, make_prediction(scan, regions), "icrp110-female")
    lesions, shown = lesions_of(scan, prediction), view_pictures(scan)
    bare = overlay_picture(scan, prediction, lesions, shown)
    regions["anterior"][:, 100:] = region_number("pelvis")
    quiet = dataclasses.replace(skeleton, regions=regions, warnings=())
    drawn = overlay_picture(scan, prediction, lesions, shown, skeleton=quiet)
    assert len(drawn) > len(bare) and not any(length % 2 for length in drawn.shape[:2])
    warned = overlay_picture(scan, prediction, lesions, shown, skeleton=dataclasses.replace(quiet, warnings=("a", "b")))
    assert len(warned) >= len(drawn) + 22
    first, second = bare[140 : len(bare) - 92], drawn[140 : len(bare) - 92]
    changed = (first != second).any(axis=2)
    colours = {tuple(REGIONS[number - 1].colour) for number in (4, 11)}
    assert changed.any() and {tuple(pixel) for pixel in second[changed].tolist()} <= colours
    assert changed.any(axis=1).mean() > 0.5 and changed.sum() < 3 * len(changed)
    assert not changed[(first == CONTOUR).all(axis=2)].any()
    lines = (drawn[len(bare) - 92 : len(drawn) - 92] == 0).all(axis=2).any(axis=1)
    assert (np.diff(lines.astype(int)) == 1).sum() >= 3, "the index, the model and the names are written"
    names = drawn[len(bare) - 92 :].reshape(-1, 3)
    assert colours <= {tuple(pixel) for pixel in np.unique(names, axis=0).tolist()}


def test_without_a_lesion_nothing_is_called_outlined(scan):
    """The line that names the colour of the outlines is in that colour, and another one stands in its place."""
    found, nothing = make_prediction(scan), make_prediction(scan, {})
    for prediction, coloured in ((found, True), (nothing, False)):
        lesions = lesions_of(scan, prediction)
        assert bool(lesions) == coloured
        titles = overlay_picture(scan, prediction, lesions, view_pictures(scan))[50:84]
        assert (titles == CONTOUR).all(axis=-1).any() == coloured


def test_outlines_lie_around_the_pixels_of_their_view(scan):
    """Areas in opposite corners: no air is left out, so that every place of the picture is known."""
    masks = {view: np.zeros((1024, 256), np.uint8) for view in VIEWS}
    masks["anterior"][:2, :3] = masks["anterior"][700:720, 40:70] = 1
    masks["posterior"][-2:, -3:] = masks["posterior"][500:510, 90:95] = 1
    prediction = make_prediction(scan, masks)
    picture = overlay_picture(scan, prediction, (), view_pictures(scan))
    top = len(picture) - 92 - 2 * 1024
    for place, view in enumerate(VIEWS):
        column = 30 + place * (2 * 256 + 24)
        shown = picture[top : top + 2 * 1024, column : column + 2 * 256]
        assert np.array_equal((shown == CONTOUR).all(axis=2), outline(masks[view], 2))
        end = 2 * (prediction.prepared.placements[view].top + 640)
        written = (shown[end : end + 50, -110:] == 90).all(axis=2)
        assert written[0].any() and written[8:].sum() > 50, "a line, and that nothing is segmented below"


def test_the_thumbnail_is_marked(scan):
    """The phantom's note is in the last rows, the sides are in the first ones, and outlines are where lesions are."""
    mask = np.zeros((1024, 256), np.uint8)
    mask[300:330, 99:129] = 1
    prediction = make_prediction(scan, {"posterior": mask})

    def drawn(**changes):
        other = dataclasses.replace(scan, **changes)
        return thumbnail(other, prediction, view_pictures(other))

    picture, patient = drawn(), drawn(phantom=False)
    assert picture.shape == (341, 180, 3)
    rows, _ = (picture != patient).any(axis=2).nonzero()
    assert rows.min() > 320
    reddish = picture[..., 0].astype(int) - picture[..., 2] > 60
    rows, columns = reddish.nonzero()
    assert abs(rows.min() - 100) <= 1 and abs(rows.max() - 110) <= 1
    assert abs(columns.min() - (95 + 33)) <= 1 and abs(columns.max() - (95 + 43)) <= 1
    letters = [patient[:14, left : left + 85].min() < 120 for left in (0, 95)]
    ink = [(255 - patient[2:14, left : left + 14].astype(int)).sum() for left in (1, 70, 96, 165)]
    assert ink[0] > ink[1] and ink[3] > ink[2], "an R has more ink than an L"
    blank = np.zeros_like(scan.posterior)
    one = drawn(phantom=False, posterior=blank, missing_views=("posterior",))
    assert letters == [True, True] and (one[:14, 95:] == 255).all()
