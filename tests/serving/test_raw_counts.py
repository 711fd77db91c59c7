"""The preparation inside the graph equals that in NumPy to the bit; what cannot be prepared gets no mask."""

import dataclasses

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from intensity_run import intensity_model

from doubleunet_bs.errors import ScanError
from doubleunet_bs.inference.engines import STATUS_REASONS
from doubleunet_bs.preparation import PreparationSettings, prepare_scan
from doubleunet_bs.scans.bone_scan import BoneScan

VIEWS = ("anterior", "posterior")
SETTINGS = [
    pytest.param(PreparationSettings(bin=1), marks=pytest.mark.slow),
    pytest.param(PreparationSettings(bin=1, brightness="per_view"), marks=pytest.mark.slow),
    pytest.param(PreparationSettings(bin=2), marks=pytest.mark.slow),
    PreparationSettings(bin=4, brightness="per_view"),
    pytest.param(PreparationSettings(bin=4, source="pictures"), marks=pytest.mark.slow),
]

# Counts a scanner should never send, and some it does.
ALTERATIONS = ("thin", "brighten", "up", "aside", "hot", "blank", "cut", "noise", "halve")


def alter(counts: np.ndarray, steps: list[tuple[str, int]]) -> np.ndarray:
    """(2, 1024, 256) uint16 -> the same after some steps: each a kind of alteration and a number for its size."""
    for kind, number in steps:
        rng = np.random.default_rng(number)
        wide = counts.astype(np.int64)
        if kind == "thin":  # down to a thousandth of the counts
            wide = rng.binomial(wide, 10 ** rng.uniform(-3, 0))
        elif kind == "brighten":
            wide = wide * rng.integers(2, 40)
        elif kind == "up":  # the body at an edge, or over it
            wide = np.roll(wide, rng.integers(-400, 400), axis=1)
        elif kind == "aside":
            wide = np.roll(wide, rng.integers(-128, 128), axis=2)
        elif kind == "hot":  # an injection site
            row, column, size = rng.integers(1000), rng.integers(240), rng.integers(1, 25)
            wide[rng.integers(2), row : row + size, column : column + size] = rng.integers(0, 65536)
        elif kind == "blank":
            wide[rng.integers(2)] = 0
        elif kind == "cut":
            wide[:, rng.integers(50, 1024) :] = 0
        elif kind == "noise":
            wide = rng.poisson(10 ** rng.uniform(-4, 2), wide.shape)
        elif kind == "halve":
            wide //= rng.integers(2, 60)
        counts = np.clip(wide, 0, 65535).astype(np.uint16)
    return counts


STEPS = st.lists(st.tuples(st.sampled_from(ALTERATIONS), st.integers(0, 10_000)), max_size=3)


def scan_of(counts: np.ndarray) -> BoneScan:
    """A scan whose blank views are missing ones, as the endpoint takes them."""
    missing = tuple(view for view, one in zip(VIEWS, counts, strict=True) if not one.any())
    return BoneScan(counts[0], counts[1], None, "case", missing_views=missing)


@pytest.fixture(scope="module")
def bases(scan):
    """Counts to start from: a phantom, a dim one, and two bodies of a few rectangles."""
    from bodies import block, person

    phantom = np.stack([scan.anterior, scan.posterior])
    return [phantom, phantom // 6, np.stack([person(1), person(2)]), np.stack([block(), block(seed=1)])]


@pytest.fixture(scope="module", params=SETTINGS, ids=lambda one: f"bin{one.bin}-{one.brightness}-{one.source}")
def both(request, tensorflow):
    """Settings, both endpoints of a model that sees grey levels above 150, and the preparation alone, as a graph."""
    from doubleunet_bs.inference.keras_model import image_signature, segmentation_function
    from doubleunet_bs.serving.raw_counts import counts_signature, prepare_counts, raw_counts_function

    chosen = request.param
    segment = segmentation_function(intensity_model(*chosen.image_shape))
    raw = raw_counts_function(segment, chosen)

    @tensorflow.function(input_signature=[counts_signature()], autograph=False)
    def both_of(counts):  # In one graph, which prepares once.
        return raw(counts) | {"grey": prepare_counts(counts, chosen).grey}

    def both(counts):
        return {name: value.numpy() for name, value in both_of(counts).items()}

    both.settings = chosen
    both.plain = tensorflow.function(segment, [image_signature(*chosen.image_shape)], autograph=False)
    return both


def compare(both, counts: np.ndarray) -> str:
    """Hold the endpoint's answer on one scan against NumPy's; returns what became of the scan."""
    answer = {name: value[0] for name, value in both(counts[None]).items()}
    reason = STATUS_REASONS[answer["status"]]
    try:
        prepared = prepare_scan(scan_of(counts), settings=both.settings)
    except ScanError as error:
        assert reason == error.reason
        for name in ("mask", "metastatic_probability", "grey"):
            assert not answer[name].any()
        assert answer["gains"].tolist() == [1, 1]
        return reason
    assert reason == "ok"
    assert np.array_equal(answer["grey"], prepared.grey)
    assert tuple(answer["gains"].tolist()) == prepared.gains
    for view, body in zip(VIEWS, answer["body"].tolist(), strict=True):
        assert body == (list(dataclasses.astuple(prepared.bodies[view])) if view in prepared.bodies else [-1] * 4)
    plain = {name: value.numpy()[0] for name, value in both.plain(prepared.grey[None]).items()}
    for name, image in plain.items():
        for index, (view, expected) in enumerate(prepared.map_back(image).items()):
            if view in prepared.missing_views:
                expected = np.zeros_like(expected)
            assert answer[name].dtype == expected.dtype
            assert np.array_equal(answer[name][index], expected), (name, view)
    return reason


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(number=st.integers(0, 3), steps=STEPS)
@example(number=0, steps=[])
@example(number=0, steps=[("blank", 0)])  # one view, then the other
@example(number=0, steps=[("blank", 1)])
@example(number=0, steps=[("blank", 0), ("blank", 1)])
@example(number=0, steps=[("hot", 3)])
@example(number=0, steps=[("brighten", 5)])
@example(number=3, steps=[("up", 7), ("aside", 8)])
def test_graph_and_numpy_agree_to_the_last_bit(both, bases, number, steps):
    compare(both, alter(bases[number], steps))


def test_every_status_is_met(both, bases):
    phantom = bases[0]
    assert compare(both, phantom) == "ok"
    assert compare(both, np.zeros_like(phantom)) == "missing-view"
    assert compare(both, np.full_like(phantom, 3)) == "no-body"
    # A body of which every twelfth pixel of every twelfth row has counts: no gain makes those few bright enough.
    few = np.zeros_like(phantom)
    few[:, 200:800:12, 100:160:12] = 5
    assert compare(both, few) == "too-dark"
    assert compare(both, np.stack([phantom[0], np.full_like(phantom[0], 3)])) == "no-body"


def test_a_bad_scan_does_not_touch_its_batch(both, bases):
    """What is promised: equal masks, statuses, gains and bodies, and probabilities to 1e-5. How a processor rounds may
    depend on the size of the batch."""
    good, blank = bases[0], np.zeros_like(bases[0])
    answer = both(np.stack([blank, good, np.full_like(good, 3), bases[2]]))
    assert [STATUS_REASONS[status] for status in answer["status"]] == ["missing-view", "ok", "no-body", "ok"]
    for place, counts in ((1, good), (3, bases[2])):
        alone = both(counts[None])
        for name, value in alone.items():
            tolerance = 1e-5 if name == "metastatic_probability" else 0
            np.testing.assert_allclose(answer[name][place], value[0], rtol=0, atol=tolerance, err_msg=name)
    assert answer["mask"][1].any()
    assert not answer["mask"][[0, 2]].any()


def test_no_scan_at_all(both):
    answer = both(np.zeros((0, 2, 1024, 256), np.uint16))
    assert {name: value.shape[1:] for name, value in answer.items() if name != "grey"} == {
        "mask": (2, 1024, 256),
        "metastatic_probability": (2, 1024, 256),
        "gains": (2,),
        "body": (2, 4),
        "status": (),
    }
    assert all(len(value) == 0 for value in answer.values())
