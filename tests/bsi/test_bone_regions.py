"""The colours of the regions, as people with each kind of colour vision see them."""

import itertools

import numpy as np
import pytest

from doubleunet_bs.bsi import REGIONS
from doubleunet_bs.results.overlay import CONTOUR

# Machado, Oliveira, Fernandes, IEEE Trans. Visual. Comput. Graphics 2009;15:1291, where one kind of cones is missing.
VISION = {
    "all cones": np.eye(3),
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}
TOUCHING = (
    *itertools.pairwise(("skull", "cervical spine", "thoracic spine", "lumbar spine", "sacrum", "pelvis", "femora")),
    *(("ribs", other) for other in ("thoracic spine", "lumbar spine", "sternum", "clavicles", "scapulae", "humeri")),
    *(("clavicles", other) for other in ("cervical spine", "thoracic spine", "sternum", "scapulae", "humeri")),
    *(("thoracic spine", other) for other in ("sternum", "scapulae")),
    ("scapulae", "humeri"),
    ("lumbar spine", "pelvis"),
)


def lab(colour, vision):
    """CIE L*a*b* of an sRGB colour."""
    value = np.array(colour) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    seen = np.clip(vision @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ seen
    f = np.cbrt(np.maximum(xyz / [0.9505, 1, 1.089], 1e-6))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISION)
def test_colours_can_be_distinguished(vision):
    """A difference of 2 is just seen side by side. Lines on white and grey need far more."""
    seen = {region.name: lab(region.colour, np.array(VISION[vision])) for region in REGIONS}
    outline = lab(CONTOUR, np.array(VISION[vision]))
    assert min(np.linalg.norm(seen[one] - seen[other]) for one, other in TOUCHING) > 30
    assert min(np.linalg.norm(one - other) for one, other in itertools.combinations(seen.values(), 2)) > 13
    assert min(np.linalg.norm(one - outline) for one in seen.values()) > 25
    assert max(one[0] for one in seen.values()) < 85  # seen on white
