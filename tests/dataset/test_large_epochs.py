"""Epochs in batches."""

import numpy as np
import pytest

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


def test_scales_of_several_ratios_are_those_of_each():
    counts = np.random.default_rng(0).poisson(8, (32, 32)).astype(np.uint16)
    ratios = [0.5, 0.9, 1.0, 1.4]
    together = find_scales(counts, (1.5, 2.0), ratios)
    assert together == [find_scales(counts, (1.5, 2.0), [ratio])[0] for ratio in ratios]
