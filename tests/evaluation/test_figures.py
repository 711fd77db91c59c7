import types

import numpy as np
import pytest
from PIL import Image

from doubleunet_bs.constants import FALSE_NEGATIVE, FALSE_POSITIVE, MIRRORED_WARNING, TRUE_POSITIVE, TRUTH
from doubleunet_bs.display import place_names
from doubleunet_bs.evaluation.scan_figures import draw_case


def record(phantom=None, warnings=()):
    return types.SimpleNamespace(case="case-0", phantom=phantom, warnings=warnings)


@pytest.mark.parametrize("shape", [(160, 128), (32, 32)])
def test_every_kind_of_pixel_has_its_colour_and_size(tmp_path, shape):
    labels = np.ones(shape, np.uint8)
    mask = np.zeros(shape, np.uint8)
    labels[12:14, 2:8] = 2  # 12 true pixels ...
    mask[12:14, 2:5] = 1  # ... 6 of them found
    mask[20:22, 2:4] = 1  # and 4 wrong ones
    path = tmp_path / "case.png"
    draw_case(path, record(), np.full(shape, 40, np.uint8), labels, mask)
    picture = np.asarray(Image.open(path).convert("RGB"))
    scale = 960 // shape[0]
    # Legend patches have the same colours: look at the panels only.
    panels = picture[: int(picture.shape[0] * 0.94)]
    for rgb, pixels in ((TRUE_POSITIVE, 6), (FALSE_POSITIVE, 4), (FALSE_NEGATIVE, 6), (TRUTH, 12)):
        assert np.all(panels == rgb, axis=2).sum() == pixels * scale**2


def test_picture_carries_no_metadata(tmp_path):
    path = tmp_path / "case.png"
    draw_case(path, record(), *np.zeros((3, 32, 32), np.uint8))
    assert set(Image.open(path).info) <= {"dpi"}


def test_a_phantom_is_called_one(tmp_path):
    """In the title, and nowhere else does the picture change."""
    pictures = []
    for number, phantom in enumerate((True, False, None)):
        path = tmp_path / f"{number}.png"
        draw_case(path, record(phantom=phantom), *np.zeros((3, 32, 32), np.uint8))
        pictures.append(np.asarray(Image.open(path).convert("L")).astype(int))
    marked, plain, unknown = pictures
    assert (plain == unknown).all()
    rows, columns = np.nonzero(marked != plain)
    assert rows.size and rows.max() < 0.06 * len(plain) and columns.max() < 0.6 * plain.shape[1]


def test_no_side_is_stated_where_it_is_in_doubt(tmp_path):
    pictures = []
    for number, warnings in enumerate(((), ["few counts"], [MIRRORED_WARNING])):
        draw_case(tmp_path / f"{number}.png", record(warnings=warnings), *np.zeros((3, 32, 32), np.uint8))
        pictures.append(np.asarray(Image.open(tmp_path / f"{number}.png").convert("L")).astype(int))
    sure, other, doubtful = pictures
    assert (sure == other).all() and (sure != doubtful).any()
    assert [text for _, text in place_names(100)] == ["R", "anterior", "L", "L", "posterior", "R"]
    assert [text for _, text in place_names(100, [MIRRORED_WARNING])] == ["?", "anterior", "?", "?", "posterior", "?"]
