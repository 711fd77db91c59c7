"""The losses with masks small enough to compute by hand, and in every corner where they could break."""

import numpy as np
import pytest
import tensorflow as tf

from doubleunet_bs.network.losses import DiceLoss, FocalTverskyLoss

AIR, BONE, LESION = 0, 1, 2


def one_hot(labels, certainty=1.0):
    """Softmax-like probabilities: `certainty` for the given class, the rest shared."""
    labels = np.asarray(labels)
    rest = (1 - certainty) / 2
    return np.where(labels[..., None] == np.arange(3), certainty, rest).astype(np.float32)


# One image of 2 x 4 pixels: 3 of bone, 2 of lesion.
TRUTH = np.array([[[AIR, BONE, BONE, BONE], [AIR, AIR, LESION, LESION]]], np.uint8)
# Lesion: 1 hit, 1 false positive (a bone pixel), 1 miss (called air). Bone: 2 hits, 1 miss, no false positive.
GUESS = one_hot([[[AIR, BONE, BONE, LESION], [AIR, AIR, LESION, AIR]]])


def test_dice_by_hand():
    s = 1.0
    bone = 1 - (2 * 2 + s) / (3 + 2 + s)
    lesion = 1 - (2 * 1 + s) / (2 + 2 + s)
    assert float(DiceLoss(smooth=s)(TRUTH, GUESS)) == pytest.approx((bone + lesion) / 2, rel=1e-6)


def test_focal_tversky_by_hand():
    s = 1.0
    bone = (1 - (2 + s) / (2 + 0.3 * 0 + 0.7 * 1 + s)) ** 0.75
    lesion = (1 - (1 + s) / (1 + 0.3 * 1 + 0.7 * 1 + s)) ** 0.75
    assert float(FocalTverskyLoss(smooth=s)(TRUTH, GUESS)) == pytest.approx((bone + lesion) / 2, rel=1e-6)


def test_alpha_weighs_false_positives_and_beta_false_negatives():
    only_fp = one_hot([[[AIR, BONE, BONE, LESION], [AIR, AIR, LESION, LESION]]])
    only_fn = one_hot([[[AIR, BONE, BONE, BONE], [AIR, AIR, LESION, AIR]]])
    loss = FocalTverskyLoss(classes=[LESION], smooth=0.0)
    assert float(loss(TRUTH, only_fp)) == pytest.approx((0.3 / 2.3) ** 0.75, rel=1e-6)
    assert float(loss(TRUTH, only_fn)) == pytest.approx((0.7 / 1.7) ** 0.75, rel=1e-6)


def test_air_has_no_term_unless_asked_for():
    wrong_air = one_hot([[[AIR, BONE, BONE, BONE], [AIR, AIR, LESION, LESION]]], certainty=1.0)
    assert float(DiceLoss()(TRUTH, wrong_air)) == 0.0
    lesion_only, bone_only = DiceLoss(classes=[LESION])(TRUTH, GUESS), DiceLoss(classes=[BONE])(TRUTH, GUESS)
    assert float(DiceLoss()(TRUTH, GUESS)) == pytest.approx((float(lesion_only) + float(bone_only)) / 2, rel=1e-6)
    assert float(DiceLoss(classes=[AIR])(TRUTH, GUESS)) == pytest.approx(1 - 7 / 8, rel=1e-6)


def test_sums_run_over_the_whole_batch():
    """An image without lesion does not degenerate: the batch is one large image, not a mean over images."""
    empty = np.full_like(TRUTH, AIR)
    truth, guess = np.concatenate([TRUTH, empty]), np.concatenate([GUESS, one_hot(empty)])
    assert float(DiceLoss()(truth, guess)) == pytest.approx(float(DiceLoss()(TRUTH, GUESS)), rel=1e-6)


def test_sigmoid_loss_is_one_dice_over_both_outputs():
    truth = np.array([[[LESION, LESION, BONE, AIR]]], np.uint8)
    outputs = np.array(
        [[[[1, 1], [1, 0], [0, 1], [0, 0]]]], np.float32
    )  # 3 hits, 1 miss, 1 false positive in two channels
    assert float(DiceLoss(smooth=0.0)(truth, outputs)) == pytest.approx(1 - 2 * 3 / (4 + 4), rel=1e-6)


def test_weights_scale_the_sums_of_an_image():
    truth, guess = np.concatenate([TRUTH, TRUTH]), np.concatenate([GUESS, one_hot(TRUTH)])
    for loss in (DiceLoss(), FocalTverskyLoss()):
        assert float(loss.call(truth, guess, weights=[1.0, 0.0])) == pytest.approx(float(loss(TRUTH, GUESS)), rel=1e-6)
        twice = np.concatenate([TRUTH, TRUTH]), np.concatenate([GUESS, GUESS])
        assert float(loss.call(*twice, weights=[0.5, 0.5])) == pytest.approx(float(loss(TRUTH, GUESS)), rel=1e-6)


LOSSES = [DiceLoss(), FocalTverskyLoss()]
CORNERS = {
    "all air, predicted with certainty": (np.zeros((2, 4, 4), np.uint8), np.zeros((2, 4, 4), np.uint8), 1.0),
    "all air, all called lesion": (np.zeros((2, 4, 4), np.uint8), np.full((2, 4, 4), LESION), 1.0),
    "all lesion, all called air": (np.full((2, 4, 4), LESION, np.uint8), np.zeros((2, 4, 4), np.uint8), 1.0),
    "all lesion, perfect": (np.full((2, 4, 4), LESION, np.uint8), np.full((2, 4, 4), LESION), 1.0),
    "perfect": (TRUTH, TRUTH, 1.0),
    "almost perfect": (TRUTH, TRUTH, 1 - 1e-7),
    "no idea": (TRUTH, TRUTH, 1 / 3),
}


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_loss_and_gradient_are_finite_in_every_corner(loss, corner, dtype):
    truth, guessed, certainty = CORNERS[corner]
    probabilities = tf.Variable(tf.cast(one_hot(guessed, certainty), dtype))
    with tf.GradientTape() as tape:
        value = loss(truth, tf.convert_to_tensor(probabilities))
    gradient = tf.cast(tape.gradient(value, probabilities), tf.float32).numpy()
    assert np.isfinite(value) and 0 <= value <= 1
    assert np.isfinite(gradient).all()
    if corner == "perfect":
        assert value == 0


@pytest.mark.parametrize("corner", CORNERS)
def test_almost_no_smoothing_stays_finite(corner):
    truth, guessed, certainty = CORNERS[corner]
    probabilities = tf.Variable(one_hot(guessed, certainty))
    with tf.GradientTape() as tape:
        value = FocalTverskyLoss(smooth=1e-6)(truth, tf.convert_to_tensor(probabilities))
    assert np.isfinite(value) and np.isfinite(tape.gradient(value, probabilities)).all()


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_gradient_points_towards_the_truth(loss):
    probabilities = tf.Variable(one_hot(TRUTH, 1 / 3))
    with tf.GradientTape() as tape:
        value = loss(TRUTH, tf.convert_to_tensor(probabilities))
    gradient = tape.gradient(value, probabilities).numpy()
    truth = TRUTH[..., None] == np.arange(3)
    assert (gradient[..., 1:][truth[..., 1:]] < 0).all(), "more of the true class must lower the loss"
    assert (gradient[..., 1:][~truth[..., 1:]] > 0).all(), "more of a wrong class must raise the loss"
    assert not gradient[..., 0].any(), "air has no term of its own"


def test_sums_of_a_full_size_batch_survive_half_precision():
    """640 x 512 x 4 pixels add up to far more than the 65,504 float16 can hold."""
    truth = np.full((4, 640, 512), BONE, np.uint8)
    half = tf.cast(tf.fill((4, 640, 512, 3), 0.5), tf.float16)
    sums = DiceLoss().sums(truth, half).numpy()
    np.testing.assert_allclose(sums[0], [655_360, 0, 655_360], rtol=1e-6)


@pytest.mark.parametrize("loss", [DiceLoss(smooth=2.0), FocalTverskyLoss(alpha=0.5, gamma=1.0, classes=[2])])
def test_configuration_round_trip(loss):
    again = type(loss).from_config(loss.get_config())
    assert float(again(TRUTH, GUESS)) == float(loss(TRUTH, GUESS))
    assert again.get_config() == loss.get_config()
    assert again.name == loss.name
    saved = tf.keras.losses.deserialize(tf.keras.losses.serialize(loss))
    assert type(saved) is type(loss) and saved.get_config() == loss.get_config()


@pytest.mark.parametrize(("loss", "typo"), [(DiceLoss, "smoothing"), (FocalTverskyLoss, "aplha"), (DiceLoss, "alpha")])
def test_misspelt_arguments_are_refused(loss, typo):
    with pytest.raises(TypeError, match=typo):
        loss(**{typo: 0.9})


@pytest.mark.parametrize("channels", [1, 3])
def test_labels_with_channels_are_refused(channels):
    """Where rows, columns and batch are equal, broadcasting would make one loss of them without a word."""
    with pytest.raises(ValueError, match="not one-hot"):
        DiceLoss()(np.zeros((1, 1, 1, channels), np.uint8), np.full((1, 1, 1, 3), 1 / 3, np.float32))


def test_focal_tversky_with_gamma_1_and_equal_weights_is_dice():
    tversky = FocalTverskyLoss(alpha=0.5, beta=0.5, gamma=1.0, smooth=0.5)
    assert float(tversky(TRUTH, GUESS)) == pytest.approx(float(DiceLoss(smooth=1.0)(TRUTH, GUESS)), rel=1e-6)


def test_many_classes_at_once_give_the_sums_of_each_class_alone():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 13, (2, 6, 5)).astype(np.uint8)
    probabilities = rng.random((2, 6, 5, 13)).astype(np.float32)
    weights = np.array([1.0, 0.5], np.float32)
    sums = np.array(DiceLoss(classes=range(1, 13)).sums(labels, probabilities, weights))
    assert sums.shape == (12, 3)
    for place, number in ((0, 1), (6, 7), (11, 12)):
        y, p = labels == number, probabilities[..., number].astype(np.float64)
        scale = weights[:, None, None]
        expected = [(scale * term).sum() for term in (y * p, (1 - y) * p, y * (1 - p))]
        assert sums[place] == pytest.approx(expected, rel=1e-5)
