"""Numbers, names and outlines of the overlay, wherever they come to be."""

import dataclasses

import numpy as np
from handmade_prediction import lesions_of, make_prediction

from doubleunet_bs.inference.model_description import Member
from doubleunet_bs.results.overlay import CONTOUR, overlay_picture, view_pictures
from doubleunet_bs.training.experiments import paper_experiment


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
    picture = overlay_picture(scan, dataclasses.replace(prediction, model=model), (), view_pictures(scan))
    written = (picture[50:84] == CONTOUR).all(axis=-1).any(axis=0)
    # The line reaches far to the right, and ends where the views do.
    assert written[-200:-30].any() and not written[-30:].any()
