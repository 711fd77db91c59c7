"""Batches: what is in them, their order, and how they are dealt out to replicas."""

import numpy as np
import pytest

from doubleunet_bs.dataset.pipeline import (
    epoch_order,
    evaluation_pieces,
    evaluation_shares,
    load_piece,
    pairs_of,
    train_shares,
    training_pieces,
)


def collected(pieces):
    return [{key: value.numpy() for key, value in piece.items()} for piece in pieces]


def test_a_piece_holds_the_prepared_images_as_integers(synthetic_shards):
    piece = load_piece(synthetic_shards, [3, 1], [1.0, 0.5])
    assert piece["grey"].dtype == piece["labels"].dtype == np.uint8
    for position, index in enumerate((3, 1)):
        np.testing.assert_array_equal(piece["grey"][position], synthetic_shards.grey(index))
        np.testing.assert_array_equal(piece["labels"][position], synthetic_shards.labels(index))
    assert piece["weights"].tolist() == [1.0, 0.5] and piece["index"].tolist() == [3, 1]


def test_tf_data_delivers_what_the_step_by_itself_loads(synthetic_shards):
    for piece in collected(evaluation_pieces(synthetic_shards, [4, 7, 2], 2)):
        expected = load_piece(synthetic_shards, piece["index"], piece["weights"])
        for key, value in expected.items():
            np.testing.assert_array_equal(piece[key], value)
            assert piece[key].dtype == value.dtype


def test_every_epoch_shows_every_case_once_in_an_order_of_its_own(synthetic_shards):
    cases = [0, 2, 3, 5, 8, 13, 21]
    pieces = collected(training_pieces(synthetic_shards, cases, 3, 1, seed=1, first_epoch=0, last_epoch=4))
    assert [len(piece["index"]) for piece in pieces] == [3, 3, 1] * 4
    epochs = [
        np.concatenate([piece["index"] for piece in pieces[start : start + 3]]).tolist() for start in range(0, 12, 3)
    ]
    assert all(sorted(epoch) == cases for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_order_is_a_function_of_seed_and_epoch(synthetic_shards):
    def order(**keywords):
        settings = {"seed": 1, "first_epoch": 0, "last_epoch": 3, **keywords}
        pieces = training_pieces(synthetic_shards, range(10), 4, 1, **settings)
        return [piece["index"].tolist() for piece in collected(pieces)]

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
    shares, weight = train_shares(batch, replicas)
    assert len(shares) == replicas and all(shares), "no replica may be empty"
    shown = [index for share in shares for index in share]
    assert {shown.count(index) * weight for index in batch} == {1.0}
    if size >= replicas:
        assert shown == batch and max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(("size", "pieces"), [(2, 2), (3, 2), (2, 3), (5, 4), (7, 4)])
def test_a_short_batch_is_dealt_out_in_pairs(size, pieces):
    batch = list(range(100, 100 + size))
    dealt = pairs_of(batch, pieces)
    assert len(dealt) == pieces and all(len(set(images)) == 2 for images, _ in dealt), "two different images each"
    weights = dict.fromkeys(batch, 0.0)
    for images, parts in dealt:
        for image, part in zip(images, parts, strict=True):
            weights[image] += part
    assert weights == dict.fromkeys(batch, pytest.approx(1.0))


@pytest.mark.parametrize(
    ("cases", "sizes"), [(6, [2, 2, 2, 2]), (7, [2, 2, 2, 2]), (8, [2, 2, 2, 2]), (5, [2, 2, 1, 1])]
)
def test_no_piece_of_one_image_where_it_can_be_helped(synthetic_shards, cases, sizes):
    pieces = list(training_pieces(synthetic_shards, range(cases), 4, 2, 0, 0, 1, no_single=True))
    assert [len(piece["index"]) for piece in pieces] == sizes
    weights = np.zeros(cases)
    for piece in pieces:
        np.add.at(weights, piece["index"].numpy(), piece["weights"].numpy())
    np.testing.assert_allclose(weights, 1)


@pytest.mark.parametrize("replicas", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_evaluation_shares_count_every_image_once(size, replicas):
    batch = list(range(100, 100 + size))
    shares = evaluation_shares(batch, replicas)
    assert len(shares) == replicas and all(indices for indices, _ in shares)
    counted = [index for indices, weights in shares for index, weight in zip(indices, weights, strict=True) if weight]
    assert counted == batch
    assert {weight for _, weights in shares for weight in weights} <= {0.0, 1.0}


def test_pieces_of_a_batch_follow_each_other(synthetic_shards):
    pieces = collected(training_pieces(synthetic_shards, range(9), 4, 2, seed=0, first_epoch=0, last_epoch=1))
    order = [np.arange(9)[epoch_order(9, 0, 0)][start : start + 4] for start in range(0, 9, 4)]
    assert [len(piece["index"]) for piece in pieces] == [2, 2, 2, 2, 1, 1]
    for batch, first, second in zip(order, pieces[::2], pieces[1::2], strict=True):
        both = np.concatenate([first["index"], second["index"]])
        if len(batch) > 1:
            np.testing.assert_array_equal(both, batch)
        else:
            assert set(both) == set(batch) and first["weights"] == second["weights"] == 0.5
