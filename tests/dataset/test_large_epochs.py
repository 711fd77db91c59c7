"""Epochs in batches, and variants that are written where they are wanted."""

import numpy as np
import pytest

from doubleunet_bs.dataset.augmentation import Augmentation, mirror
from doubleunet_bs.dataset.pipeline import EpochPlan
from doubleunet_bs.preparation.brightness import find_scales


@pytest.mark.parametrize("all_variants", [True, False])
@pytest.mark.parametrize("size", [1, 4, 9, 1000])
def test_batches_are_the_images_of_the_epoch_in_their_order(all_variants, size):
    cases = [3, 5, 8, 13, 21]
    images = EpochPlan(cases, 70, 7, 14, all_variants).images(2)
    plan = EpochPlan(cases, size, 7, 14, all_variants)
    assert len(plan) == len(images) == (70 if all_variants else 5) and plan.images(2) == images
    batches = list(plan.batches(2))
    assert sum(batches, []) == images and all(len(batch) == size for batch in batches[:-1])
    assert list(plan.batches(2, first=1)) == batches[1:]


def test_an_epoch_without_cases_is_empty():
    plan = EpochPlan([], 4, 0)
    assert len(plan) == 0 and plan.images(0) == [] and list(plan.batches(0)) == []


@pytest.mark.parametrize("flip", ["none", "merged", "per_view"])
def test_a_variant_is_written_where_it_is_wanted(synthetic_shards, flip):
    augmentation = Augmentation(synthetic_shards, [2, 7], levels=3, flip=flip)
    batch = np.full((2, 3, *synthetic_shards.image_shape), 99, np.uint8)
    for variant in range(augmentation.variants):
        expected = augmentation.show(7, variant)
        augmentation.show(7, variant, out=(batch[0, 1], batch[1, 2]))
        np.testing.assert_array_equal(batch[0, 1], expected[0])
        np.testing.assert_array_equal(batch[1, 2], expected[1])
    assert (batch[0, [0, 2]] == 99).all() and (batch[1, :2] == 99).all()
    np.testing.assert_array_equal(mirror(expected[0], flip, out=batch[0, 0]), mirror(expected[0], flip))


def test_scales_of_several_ratios_are_those_of_each():
    counts = np.random.default_rng(0).poisson(8, (32, 32)).astype(np.uint16)
    ratios = [0.5, 0.9, 1.0, 1.4]
    together = find_scales(counts, (1.5, 2.0), ratios)
    assert together == [find_scales(counts, (1.5, 2.0), [ratio])[0] for ratio in ratios]
