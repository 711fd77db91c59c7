"""A scan goes in, masks in its own geometry come out."""

import copy
import dataclasses
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from intensity_run import LEVEL, SETTINGS

from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.files import read_json, write_json
from doubleunet_bs.inference import Predictor
from doubleunet_bs.preparation import prepare_scan
from doubleunet_bs.scans import read_scan


@pytest.fixture(scope="module")
def predictor(trained_run):
    return Predictor(trained_run / "fold_01")


def test_mask_is_where_the_prepared_image_is_bright(predictor, scan):
    prediction = predictor.predict(scan)
    prepared = prepare_scan(scan, settings=SETTINGS)
    assert prediction.case == scan.case
    assert prediction.prepared.gains == prepared.gains
    assert np.array_equal(prediction.prepared.grey, prepared.grey)
    bright = (prepared.grey > LEVEL).astype(np.uint8)
    assert bright.any()
    expected = prepared.map_back(bright)
    for view in ("anterior", "posterior"):
        mask, probability = prediction.masks[view], prediction.probabilities[view]
        assert (mask.shape, mask.dtype) == ((1024, 256), np.uint8)
        assert (probability.shape, probability.dtype) == ((1024, 256), np.float32)
        assert np.array_equal(mask, expected[view])
        assert np.array_equal(probability > 0.5, mask == 1)
        assert prediction.lesion_pixels[view] == expected[view].sum()
        # Coarse pixels become blocks of 4 x 4 on the raw view, bright ones on bright counts.
        counts = getattr(scan, view)
        assert counts[mask == 1].mean() > 3 * counts[mask == 0].mean()
        assert not mask[prepared.placements[view].top + 640 :].any()


def test_export_and_fold_give_the_same(predictor, trained_run, tmp_path, scan):
    alone = shutil.copytree(trained_run / "fold_01" / "saved_model", tmp_path / "model")
    moved = tmp_path / "fold_01"
    moved.mkdir()
    shutil.copytree(trained_run / "fold_01" / "saved_model", moved / "saved_model")
    expected = predictor.predict(scan)
    for path in (alone, moved):
        other = Predictor(path)
        assert other.description == predictor.description
        found = other.predict(scan)
        for view in ("anterior", "posterior"):
            assert np.array_equal(found.masks[view], expected.masks[view])
            assert np.allclose(found.probabilities[view], expected.probabilities[view], atol=1e-6)


def test_nothing_is_found_in_a_missing_view(predictor, scan):
    whole = predictor.predict(scan)
    half = dataclasses.replace(
        scan,
        posterior=np.zeros_like(scan.posterior),
        missing_views=("posterior",),
        warnings=("posterior view is missing",),
    )
    # A model that calls everything metastatic.
    everything = copy.copy(predictor)
    everything._segmenter = lambda grey: (np.ones(grey.shape, np.float32), np.ones(grey.shape, np.uint8))
    prediction = everything.predict(half)
    assert prediction.lesion_pixels["posterior"] == 0
    assert prediction.lesion_pixels["anterior"] > 100_000
    assert not prediction.probabilities["posterior"].any()
    assert "posterior view is missing" in prediction.warnings
    assert predictor.predict(half).lesion_pixels["anterior"] > 0 or whole.lesion_pixels["anterior"] == 0


def test_a_batch_gives_what_each_scan_gives(predictor, phantoms):
    """Prepared in other threads, segmented together: order and content are those of one scan after the other."""
    scans = [read_scan(path) for path in sorted(phantoms.iterdir())]
    with ThreadPoolExecutor(2) as threads:
        prepared = list(threads.map(predictor.prepare, scans))
        halves = list(threads.map(predictor.segment, [prepared, prepared[::-1]]))
    assert len(scans) == 2
    for scan, together, reverse in zip(scans, halves[0], halves[1][::-1], strict=True):
        alone = predictor.predict(scan)
        for prediction in (together, reverse):
            assert prediction.case == alone.case == scan.case
            for view in ("anterior", "posterior"):
                assert alone.masks[view].any()
                assert np.array_equal(prediction.masks[view], alone.masks[view])
    assert predictor.segment([]) == []
    # What can be read only once is not lost.
    assert [found.case for found in predictor.segment(iter(prepared))] == [scan.case for scan in scans]


def test_scans_prepared_otherwise_are_refused(predictor, scan):
    """Images of the same size: the engine could not tell. Settings of the labels alone do not matter."""
    other = prepare_scan(scan, settings=dataclasses.replace(SETTINGS, brightness="per_view", background="log"))
    with pytest.raises(RunError, match="prepared with brightness=per_view, unlike the model's"):
        predictor.segment([predictor.prepare(scan), other])
    alike = prepare_scan(scan, settings=dataclasses.replace(SETTINGS, background="log"))
    assert predictor.segment([alike])[0].lesion_pixels == predictor.predict(scan).lesion_pixels


def test_a_threshold_decides_instead_of_the_class(predictor, trained_run, scan):
    """The network's own mask, metastatic everywhere, is ignored: probabilities are 0, 0.25, 0.5 and 0.75 in stripes."""
    striped = Predictor(trained_run / "fold_01", threshold=0.5)
    stripes = np.arange(4, dtype=np.float32) / 4

    def network(grey):
        return np.resize(stripes, grey.shape), np.ones(grey.shape, np.uint8)

    striped._segmenter = network
    prediction = striped.predict(scan)
    assert (prediction.threshold, prediction.mask_rule) == (0.5, "probability of metastatic at least 0.5")
    for view in ("anterior", "posterior"):
        assert np.array_equal(prediction.masks[view] == 1, prediction.probabilities[view] >= 0.5)
        assert {0.25, 0.5} < set(np.unique(prediction.probabilities[view]))
    assert (predictor.predict(scan).threshold, predictor.threshold) == (None, None)
    for impossible in (0, 1, -0.1, float("nan")):
        with pytest.raises(SettingsError, match="give a probability above 0 and below 1"):
            Predictor(trained_run / "fold_01", threshold=impossible)


def test_models_that_are_refused(trained_run, tmp_path):
    with pytest.raises(RunError, match="no such model folder"):
        Predictor(tmp_path / "nowhere")
    with pytest.raises(RunError, match=f"fold_1: no such model folder: trained folds are {trained_run / 'fold_01'}"):
        Predictor(trained_run / "fold_1")
    with pytest.raises(RunError, match="not a model folder"):
        Predictor(tmp_path)
    fold = trained_run / "fold_01"
    for path, folder in (
        (fold / "best.weights.h5", fold),
        (fold / "saved_model" / "saved_model.pb", fold / "saved_model"),
        (fold / "saved_model" / "variables" / "variables.index", fold / "saved_model"),
    ):
        with pytest.raises(RunError, match=f": is a file: give its folder {folder}$"):
            Predictor(path)
    with pytest.raises(RunError, match="a run, not a fold"):
        Predictor(trained_run)
    with pytest.raises(SettingsError, match="engine 'abacus'"):
        Predictor(trained_run / "fold_01", engine="abacus")
    source = trained_run / "fold_01" / "saved_model"
    foreign = shutil.copytree(source, tmp_path / "foreign", ignore=shutil.ignore_patterns("assets.extra"))
    with pytest.raises(RunError, match="not a model exported by this package"):
        Predictor(foreign)
    newer = shutil.copytree(source, tmp_path / "newer")
    description = newer / "assets.extra" / "model.json"
    write_json(description, {**read_json(description), "format": 2})
    with pytest.raises(RunError, match="reads format 1"):
        Predictor(newer)
    write_json(description, {**read_json(description), "format": 1, "image_shape": [320, 256]})
    with pytest.raises(RunError, match="disagree about the size"):
        Predictor(newer)
    damaged = shutil.copytree(source, tmp_path / "damaged")
    (damaged / "saved_model.pb").write_bytes(b"\xff" * 100)
    with pytest.raises(RunError, match="damaged"):
        Predictor(damaged)
    cut = shutil.copytree(source, tmp_path / "cut")
    weights = cut / "variables" / "variables.data-00000-of-00001"
    weights.write_bytes(weights.read_bytes()[:10])
    with pytest.raises(RunError, match="damaged"):
        Predictor(cut)
    empty = shutil.copytree(source, tmp_path / "empty")
    shutil.rmtree(empty / "variables")
    with pytest.raises(RunError, match="missing, or a link"):
        Predictor(empty)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda probability, mask: (probability * np.float32("nan"), mask), "not everywhere between 0 and 1"),
        (lambda probability, mask: (probability, mask + np.uint8(2)), "other values than 0 and 1"),
        (lambda probability, mask: (probability, mask[:, :5]), "mask is uint8"),
        (lambda probability, mask: (probability.astype(np.float64), mask), "metastatic_probability is float64"),
    ],
)
def test_impossible_values_of_any_engine_are_refused(spoil, message, trained_run, scan):
    predictor = Predictor(trained_run / "fold_01")
    compute = predictor._segmenter
    predictor._segmenter = lambda images: spoil(*compute(images))
    with pytest.raises(RunError, match=f"the model computes impossible values, .*{message}"):
        predictor.predict(scan)
