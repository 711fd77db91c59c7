"""Batches: what is in them, their order, and how they are split over replicas."""

import numpy as np
import pytest
from synthetic_shards import SyntheticShards

from doubleunet_bs.dataset.pipeline import (
    EpochPlan,
    epoch_order,
    evaluation_micro_batches,
    load_micro_batch,
    split_for_evaluation,
    split_for_training,
    split_into_pairs,
    training_micro_batches,
)
from doubleunet_bs.preparation.brightness import find_scales


@pytest.fixture(scope="module")
def synthetic_shards():
    return SyntheticShards(columns=48)


def collected(micro_batches):
    return [{key: value.numpy() for key, value in micro_batch.items()} for micro_batch in micro_batches]


def test_a_micro_batch_holds_the_prepared_images_as_integers(synthetic_shards):
    micro_batch = load_micro_batch(synthetic_shards, [3, 1], [1.0, 0.5])
    assert micro_batch["grey"].dtype == micro_batch["labels"].dtype == np.uint8
    for position, index in enumerate((3, 1)):
        np.testing.assert_array_equal(micro_batch["grey"][position], synthetic_shards.grey(index))
        np.testing.assert_array_equal(micro_batch["labels"][position], synthetic_shards.labels(index))
    assert micro_batch["weights"].tolist() == [1.0, 0.5] and micro_batch["index"].tolist() == [3, 1]


def test_tf_data_delivers_what_the_step_by_itself_loads(synthetic_shards):
    for micro_batch in collected(evaluation_micro_batches(synthetic_shards, [4, 7, 2], 2)):
        expected = load_micro_batch(synthetic_shards, micro_batch["index"], micro_batch["weights"])
        for key, value in expected.items():
            np.testing.assert_array_equal(micro_batch[key], value)
            assert micro_batch[key].dtype == value.dtype


def test_every_epoch_shows_every_case_once_in_an_order_of_its_own(synthetic_shards):
    cases = [0, 2, 3, 5, 8, 13, 21]
    micro_batches = collected(training_micro_batches(synthetic_shards, EpochPlan(cases, 3, seed=1), range(4), 1))
    assert [len(micro_batch["index"]) for micro_batch in micro_batches] == [3, 3, 1] * 4
    epochs = [
        np.concatenate([micro_batch["index"] for micro_batch in micro_batches[start : start + 3]]).tolist()
        for start in range(0, 12, 3)
    ]
    assert all(sorted(epoch) == cases for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_order_is_a_function_of_seed_and_epoch(synthetic_shards):
    def order(seed=1, first_epoch=0, first_batch=0):
        plan = EpochPlan(range(10), 4, seed)
        micro_batches = training_micro_batches(synthetic_shards, plan, range(first_epoch, 3), 1, first_batch)
        return [micro_batch["index"].tolist() for micro_batch in collected(micro_batches)]

    whole = order()
    assert order() == whole
    assert order(first_epoch=2) == whole[6:], "a run that goes on sees what the whole run saw"
    assert order(first_epoch=1, first_batch=2) == whole[5:], "also from within an epoch"
    assert order(seed=2) != whole
    assert sorted(epoch_order(10, 1, 5)) == list(range(10))


@pytest.mark.parametrize("replicas", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_training_shares_show_every_image_equally_often(size, replicas):
    batch = list(range(100, 100 + size))
    shares, weight = split_for_training(batch, replicas)
    assert len(shares) == replicas and all(shares), "no replica may be empty"
    shown = [index for share in shares for index in share]
    assert {shown.count(index) * weight for index in batch} == {1.0}
    if size >= replicas:
        assert shown == batch and max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(("size", "count"), [(2, 2), (3, 2), (2, 3), (5, 4), (7, 4)])
def test_a_short_batch_is_split_into_pairs(size, count):
    batch = list(range(100, 100 + size))
    parts_of_batch = split_into_pairs(batch, count)
    assert len(parts_of_batch) == count and all(len(set(images)) == 2 for images, _ in parts_of_batch), (
        "two different images each"
    )
    weights = dict.fromkeys(batch, 0.0)
    for images, parts in parts_of_batch:
        for image, part in zip(images, parts, strict=True):
            weights[image] += part
    assert weights == dict.fromkeys(batch, pytest.approx(1.0))


@pytest.mark.parametrize(
    ("cases", "sizes"), [(6, [2, 2, 2, 2]), (7, [2, 2, 2, 2]), (8, [2, 2, 2, 2]), (5, [2, 2, 1, 1])]
)
def test_no_micro_batch_of_one_image_where_it_can_be_helped(synthetic_shards, cases, sizes):
    micro_batches = list(
        training_micro_batches(synthetic_shards, EpochPlan(range(cases), 4, 0, no_single=True), range(1), 2)
    )
    assert [len(micro_batch["index"]) for micro_batch in micro_batches] == sizes
    weights = np.zeros(cases)
    for micro_batch in micro_batches:
        np.add.at(weights, micro_batch["index"].numpy(), micro_batch["weights"].numpy())
    np.testing.assert_allclose(weights, 1)


@pytest.mark.parametrize("replicas", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_evaluation_shares_count_every_image_once(size, replicas):
    batch = list(range(100, 100 + size))
    shares = split_for_evaluation(batch, replicas)
    assert len(shares) == replicas and all(indices for indices, _ in shares)
    counted = [index for indices, weights in shares for index, weight in zip(indices, weights, strict=True) if weight]
    assert counted == batch
    assert {weight for _, weights in shares for weight in weights} <= {0.0, 1.0}


def test_micro_batches_of_a_batch_follow_each_other(synthetic_shards):
    micro_batches = collected(training_micro_batches(synthetic_shards, EpochPlan(range(9), 4, seed=0), range(1), 2))
    order = [np.arange(9)[epoch_order(9, 0, 0)][start : start + 4] for start in range(0, 9, 4)]
    assert [len(micro_batch["index"]) for micro_batch in micro_batches] == [2, 2, 2, 2, 1, 1]
    for batch, first, second in zip(order, micro_batches[::2], micro_batches[1::2], strict=True):
        both = np.concatenate([first["index"], second["index"]])
        if len(batch) > 1:
            np.testing.assert_array_equal(both, batch)
        else:
            assert set(both) == set(batch) and first["weights"] == second["weights"] == 0.5


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
