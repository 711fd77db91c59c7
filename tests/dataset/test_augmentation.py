"""Brightness levels and mirror images: exact in counts, fourteen of them, a function of seed, epoch and case."""

from collections import Counter

import numpy as np
import pytest

from doubleunet_bs.dataset.augmentation import Augmentation, brightness_levels, mirror
from doubleunet_bs.dataset.pipeline import EpochPlan, load_micro_batch, training_micro_batches
from doubleunet_bs.errors import DatasetError, ScanError
from doubleunet_bs.preparation.brightness import find_scales, to_grey


def clipped_mean(counts, gains, scale=1.0):
    half = counts.shape[1] // 2
    grey = counts * np.repeat(gains, half).astype(np.float64) * scale
    return np.minimum(grey, 255).mean()


@pytest.fixture
def counts():
    rng = np.random.default_rng(3)
    image = rng.poisson(rng.gamma(0.3, 40, (64, 48))).astype(np.uint16)
    image[10:14, 30:36] = 9000  # An injection site: white in every variant.
    return image


def test_levels_lie_evenly_inside_the_open_range():
    assert brightness_levels(10.0).tolist() == [6.25, 7.5, 8.75, 10.0, 11.25, 12.5, 13.75]
    assert brightness_levels(9.0, 3, 2.0).tolist() == [8.0, 9.0, 10.0]
    assert brightness_levels(9.0, 1).tolist() == [9.0]


@pytest.mark.parametrize("gains", [(1.0, 1.0), (2.5, 2.5), (0.75, 4.0)])
@pytest.mark.parametrize("ratio", [0.5, 0.7, 1.0, 1.3, 2.0])
def test_the_scale_multiplies_the_mean_although_pixels_saturate(counts, gains, ratio):
    [scale] = find_scales(counts, gains, [ratio])
    assert clipped_mean(counts, gains, scale) == pytest.approx(ratio * clipped_mean(counts, gains), rel=1e-12)
    # The injection site is white before and after: brighter takes more than the ratio.
    assert (scale == 1.0) if ratio == 1.0 else (scale > ratio) == (ratio > 1.0)


def test_a_scale_that_does_not_exist_is_refused():
    image = np.zeros((8, 8), np.uint16)
    image[0, :] = 1
    with pytest.raises(ScanError, match="12.50%"):
        find_scales(image, (200.0, 200.0), [1.5])
    with pytest.raises(ScanError):
        find_scales(np.zeros((8, 8), np.uint16), (1.0, 1.0), [1.1])


def test_mirror_by_hand():
    image = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.uint8)
    assert mirror(image, "none") is image
    assert mirror(image, "merged").tolist() == [[4, 3, 2, 1], [8, 7, 6, 5]]
    assert mirror(image, "per_view").tolist() == [[2, 1, 4, 3], [6, 5, 8, 7]]
    for flip in ("merged", "per_view"):
        np.testing.assert_array_equal(mirror(mirror(image, flip), flip), image)


def test_fourteen_variants_computed_from_the_counts(synthetic_shards):
    index = 3
    augmentation = Augmentation(synthetic_shards, [5, index])
    assert augmentation.variants == 14
    case = synthetic_shards.cases[index]
    raw, labels = synthetic_shards.counts(index), synthetic_shards.labels(index)
    seen = set()
    for variant in range(14):
        level = case.brightness + 1.25 * (variant // 2 - 3)
        grey, shown_labels = augmentation.show(index, variant)
        gains = augmentation.gains(index, variant)
        expected = to_grey(raw, gains)
        np.testing.assert_array_equal(grey, expected[:, ::-1] if variant % 2 else expected)
        np.testing.assert_array_equal(shown_labels, labels[:, ::-1] if variant % 2 else labels)
        # What is left to do is rounding, at most half a grey level in each pixel.
        assert clipped_mean(raw, gains) == pytest.approx(level, rel=1e-6)
        assert abs(grey.mean() - level) < 0.5
        seen.add(grey.tobytes())
    assert len(seen) == 14
    # The scan itself is among them, to the bit.
    np.testing.assert_array_equal(augmentation.show(index, 6)[0], synthetic_shards.grey(index))


def test_labels_move_with_the_picture(synthetic_shards):
    for flip in ("merged", "per_view"):
        augmentation = Augmentation(synthetic_shards, [0], levels=1, flip=flip)
        assert augmentation.variants == 2
        grey, labels = augmentation.show(0, 1)
        plain = synthetic_shards.grey(0), synthetic_shards.labels(0)
        assert (labels != plain[1]).any()
        for number in range(3):
            assert sorted(grey[labels == number]) == sorted(plain[0][plain[1] == number])


def test_without_a_flip_there_are_the_levels_alone(synthetic_shards):
    augmentation = Augmentation(synthetic_shards, [2], levels=5, flip="none")
    assert augmentation.variants == 5
    means = [augmentation.show(2, variant)[0].mean() for variant in range(5)]
    assert means == sorted(means)


def test_a_case_without_enough_counts_is_named(synthetic_shards, monkeypatch):
    dark = np.zeros((32, 32), np.uint16)
    dark[0] = 300
    monkeypatch.setattr(synthetic_shards, "counts", lambda index: dark)
    with pytest.raises(DatasetError, match="case-004: too few pixels have counts"):
        Augmentation(synthetic_shards, [4], reach=5.0)


def test_an_epoch_shows_every_variant_of_every_case_once():
    cases = [4, 7, 9]
    images = EpochPlan(cases, 4, seed=1, variants=14).images(0)
    assert Counter(images) == {(case, variant): 1 for case in cases for variant in range(14)}
    assert images != EpochPlan(cases, 4, seed=1, variants=14).images(1)
    assert images != EpochPlan(cases, 4, seed=2, variants=14).images(0)
    assert images == EpochPlan(cases, 4, seed=1, variants=14).images(0)
    # Without variants nothing changes against the plain order of the epoch.
    assert {variant for _, variant in EpochPlan(cases, 4, 1).images(0)} == {0}


def test_one_variant_in_an_epoch_is_a_function_of_seed_epoch_and_case():
    def chosen_of(cases, seed, epoch):
        return dict(EpochPlan(cases, 4, seed, 14, all_variants=False).images(epoch))

    chosen = chosen_of(range(200), 5, 3)
    assert sorted(chosen) == list(range(200)) and set(chosen.values()) == set(range(14))
    # The other cases have no say.
    assert chosen_of([3, 70, 199], 5, 3) == {case: chosen[case] for case in (3, 70, 199)}
    assert chosen_of(range(200), 5, 4) != chosen
    assert chosen_of(range(200), 6, 3) != chosen


@pytest.mark.parametrize("all_variants", [True, False])
def test_tf_data_delivers_the_variants_and_goes_on_within_an_epoch(synthetic_shards, all_variants):
    cases = [0, 1, 3]
    augmentation = Augmentation(synthetic_shards, cases)

    plan = EpochPlan(cases, 4, 2, augmentation.variants, all_variants)

    def collected(first_epoch=0, first_batch=0):
        epochs = range(first_epoch, 2)
        micro_batches = training_micro_batches(synthetic_shards, plan, epochs, 1, first_batch, augmentation)
        return [{name: value.numpy() for name, value in micro_batch.items()} for micro_batch in micro_batches]

    whole = collected()
    images = len(plan)
    batches = -(-images // 4)
    assert len(whole) == 2 * batches and sum(len(micro_batch["index"]) for micro_batch in whole) == 2 * images
    for micro_batch in whole:
        expected = load_micro_batch(
            synthetic_shards, micro_batch["index"], micro_batch["weights"], micro_batch["variant"], augmentation
        )
        for name, value in expected.items():
            np.testing.assert_array_equal(micro_batch[name], value)
            assert micro_batch[name].dtype == value.dtype
    rest = collected(first_epoch=1) if batches == 1 else collected(first_batch=3)
    for one, other in zip(rest, whole[-len(rest) :], strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
