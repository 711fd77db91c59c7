"""The rows of the paper as settings."""

import dataclasses
import json
import pydoc
import re

import numpy as np
import pytest

from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.runs.experiments import (
    CHOICES,
    PAPER_EXPERIMENTS,
    Experiment,
    paper_experiment,
    parse_changes,
    settings_table,
)

ROWS = [
    ("baseline", 1, "dice", "none", False),
    ("dice", 3, "dice", "none", False),
    ("dice-otsu", 3, "dice", "otsu", False),
    ("dice-otsu-transfer", 3, "dice", "otsu", True),
    ("dice-mining", 3, "dice", "mining", False),
    ("dice-mining-transfer", 3, "dice", "mining", True),
    ("focal-tversky", 3, "focal-tversky", "none", False),
    ("focal-tversky-otsu", 3, "focal-tversky", "otsu", False),
    ("focal-tversky-otsu-transfer", 3, "focal-tversky", "otsu", True),
    ("focal-tversky-mining", 3, "focal-tversky", "mining", False),
    ("focal-tversky-mining-transfer", 3, "focal-tversky", "mining", True),
    ("focal-tversky-otsu-transfer-augmented", 3, "focal-tversky", "otsu", True),
]


def test_there_are_twelve_rows():
    assert list(PAPER_EXPERIMENTS) == [row[0] for row in ROWS] and len(ROWS) == 12


@pytest.mark.parametrize(("name", "classes", "loss", "negatives", "transfer"), ROWS)
def test_rows(name, classes, loss, negatives, transfer):
    row = paper_experiment(name)
    assert (row.classes, row.loss, row.negatives, row.transfer) == (classes, loss, negatives, transfer)
    assert (row.brightness_levels, row.flip, row.variants) == ((7, "merged", 14) if "augm" in name else (1, "none", 1))
    # What the paper states for all of them (sections 2.8, 2.10 and 3.1), and Keras' and the original code's defaults.
    assert (row.learning_rate, row.batch_size, row.epochs, row.folds) == (1e-4, 4, 500, 10)
    assert (row.alpha, row.beta, row.gamma) == (0.3, 0.7, 0.75)
    assert (row.schedule, row.plateau_factor, row.plateau_patience, row.early_stopping) == ("plateau", 0.1, 20, 0)
    assert (row.encoder_weights, row.bn_momentum) == ("imagenet", 0.99)
    assert row.is_paper_row and not row.changed_settings()


def test_a_changed_row_says_so():
    changed = paper_experiment("dice", epochs=3, seed=7)
    assert not changed.is_paper_row and changed.changed_settings() == {"epochs": 3, "seed": 7}
    assert PAPER_EXPERIMENTS["dice"].epochs == 500


def test_every_setting_can_be_given_as_text():
    """And a run with any of them changed is no longer the paper's row."""
    augmented, mined = map(paper_experiment, ("focal-tversky-otsu-transfer-augmented", "dice-mining"))
    other = {str: ["none", "dice", "zeros", "per_view", "one", "mined", "cosine"], int: ["3", "1"], float: ["0.5"]}
    for field in dataclasses.fields(Experiment):
        if field.name in ("name", "start_from"):
            continue
        row = mined if field.name == "mining_start" else augmented
        value = getattr(row, field.name)
        kind = type(value)
        texts = other.get(kind, ["no", "yes"] if kind is bool else ["2"])
        for text in texts:
            try:
                changed = paper_experiment(row.name, **parse_changes([f"{field.name.replace('_', '-')}={text}"]))
            except SettingsError:
                continue
            if changed != row:
                break
        assert type(getattr(changed, field.name)) is kind and list(changed.changed_settings()) == [field.name]
        assert not changed.is_paper_row


def test_the_settings_are_explained_where_the_table_says():
    [place] = re.findall(r"help\('(\S+)'\)", settings_table())
    assert pydoc.locate(place) is Experiment


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["colour=red"], "not NAME=VALUE of a setting; --set help lists them"),
        (["flip"], "not NAME=VALUE"),
        (["name=mine"], "not NAME=VALUE"),
        (["start_from=run"], "not NAME=VALUE"),
        (["epoch=3"], "did you mean epochs[?]"),
        (["epochs=many"], "epochs 'many': must be a whole number"),
        (["gamma=x"], "must be a number"),
        (["transfer=maybe"], "must be yes or no"),
        (["loss_classes=a"], "must be class numbers"),
        (["epochs=3", "epochs=4"], "set twice"),
    ],
)
def test_text_that_is_no_setting(assignments, message):
    with pytest.raises(SettingsError, match=message):
        parse_changes(assignments)


def test_an_own_experiment_is_no_paper_row():
    own = Experiment("mine", loss="focal-tversky")
    assert not own.is_paper_row and own.changed_settings() == dataclasses.asdict(own)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("dize", {}, "no experiment 'dize'; did you mean dice[?]"),
        ("focal_tversky-otsu", {}, "did you mean focal-tversky-otsu[?]"),
        ("Dice-Mining", {}, "did you mean dice-mining[?]"),
        ("unet", {}, "there are baseline, dice,"),
        ("dice", {"loss": "focal_tversky"}, "loss focal_tversky: dice or focal-tversky; did you mean focal-tversky[?]"),
        ("dice", {"flip": "perview"}, "did you mean per_view[?]"),
        ("dice", {"head_bias": "zero"}, "head bias zero: prior or zeros; did you mean zeros[?]"),
        ("dice", {"classes": 2}, "classes 2: 1, 3, 4 or 13$"),
    ],
)
def test_unknown_names_and_values_suggest_the_near_one(name, changes, message):
    with pytest.raises(SettingsError, match=message):
        paper_experiment(name, **changes)


def test_the_table_of_settings_has_every_name_with_values_and_default():
    table = {line.split()[0]: line for line in settings_table().splitlines() if line}
    settable = {field.name for field in dataclasses.fields(Experiment)} - {"name", "start_from"}
    assert settable <= set(table)
    for name in settable:
        value = getattr(Experiment("x"), name)
        shown = {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
        assert table[name].endswith(",".join(map(str, value)) if isinstance(value, tuple) else f"  {shown}"), name
        # Whatever the table says can be given.
        for choice in CHOICES.get(name, ()):
            assert str(choice) in table[name]
            parse_changes([f"{name}={choice}"])


NAN, INF = float("nan"), float("inf")
IMPOSSIBLE = {
    "classes": (2,),
    "loss": ("cross-entropy",),
    "negatives": ("some",),
    "mining_start": ("again",),
    "pretrain_negatives": ("mining",),
    "pretrain_epochs": (-1,),
    "brightness_levels": (6, 0),
    "brightness_reach": (0.0, 7.5),
    "flip": ("vertical",),
    "variants_per_epoch": ("some",),
    "head_bias": ("ones",),
    "batch_size": (0,),
    "epochs": (0,),
    "learning_rate": (0.0, NAN),
    "plateau_factor": (0.0,),
    "plateau_patience": (0,),
    "schedule": ("steps",),
    "early_stopping": (-1,),
    "bn_momentum": (1.0,),
    "folds": (2, 100),
    "seed": (-1, 2**32),
    "smooth": (0.0, NAN, INF),
    "alpha": (-0.1, NAN),
    "beta": (INF, -1.0),
    "gamma": (0.0, -1.0, NAN, INF),
    "loss_classes": ((), (3,), (1, 1, 2)),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in IMPOSSIBLE.items() for value in values])
def test_impossible_settings(name, value):
    with pytest.raises(SettingsError):
        paper_experiment("dice", **{name: value})


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("encoder_weights", None, 'a text, such as "none"'),
        ("epochs", 3.0, "a whole number"),
        ("epochs", True, "a whole number"),
        ("learning_rate", "1e-3", "a number"),
        ("transfer", 1, "yes or no"),
        ("loss_classes", 2, "class numbers: 1,2"),
    ],
)
def test_values_of_another_kind(name, value, kind):
    """Otherwise `create_run` would find out after it has written a run that nothing can open."""
    with pytest.raises(SettingsError, match=f"^{name.replace('_', ' ')} .*: must be {kind}$"):
        paper_experiment("dice", **{name: value})


def test_a_number_of_numpy_is_a_number():
    swept = paper_experiment(
        "dice-otsu", learning_rate=np.float32(0.001), epochs=np.int64(3), transfer=np.bool_(True), loss=np.str_("dice")
    )
    assert Experiment.from_json(json.loads(json.dumps(swept.to_json())), "x") == swept


@pytest.mark.parametrize("changes", [{"negatives": "mining", "classes": 1}, {"alpha": 0.0, "beta": 0.0}])
def test_settings_that_are_impossible_together(changes):
    with pytest.raises(SettingsError):
        paper_experiment("dice", **changes)


def test_loss_classes_have_no_order():
    assert paper_experiment("dice", **parse_changes(["loss_classes=2,1"])) == paper_experiment("dice")
    assert Experiment("mine", loss_classes=(2, 0)).loss_classes == (0, 2)


@pytest.mark.parametrize(
    ("name", "assignment", "missing"),
    [
        ("dice", "pretrain_epochs=50", "pre-training"),
        ("dice-otsu", "pretrain_negatives=none", "pre-training"),
        ("dice-otsu-transfer", "mining_start=mined", "mining"),
    ],
)
def test_a_setting_of_a_stage_that_is_not_there_is_refused(name, assignment, missing):
    changes = parse_changes([assignment])
    with pytest.raises(SettingsError, match=f"^{assignment} has no effect without {missing} .*; leave it out$"):
        paper_experiment(name, **changes)
    assert paper_experiment("dice-mining-transfer", **changes).changed_settings() == changes
    # What is as in the paper's row may be said; and a run that was made with more can be opened.
    assert paper_experiment(name, **{field: getattr(paper_experiment(name), field) for field in changes}).is_paper_row
    content = {**paper_experiment(name).to_json(), **changes}
    assert Experiment.from_json(content, "run.json").changed_settings() == changes


@pytest.mark.parametrize(
    ("setting", "without", "needed"),
    [
        ("alpha=0.5", "loss=dice", "loss=focal-tversky"),
        ("beta=0.5", "loss=dice", "loss=focal-tversky"),
        ("gamma=1.0", "loss=dice", "loss=focal-tversky"),
        ("plateau_factor=0.5", "schedule=cosine", "schedule=plateau"),
        ("plateau_patience=5", "schedule=cosine", "schedule=plateau"),
        ("brightness_reach=2.0", "brightness_levels=1", "brightness_levels=7"),
        ("variants_per_epoch=one", "flip=none", "brightness_levels=7"),
    ],
)
def test_a_series_over_a_setting_without_effect_is_refused(setting, without, needed):
    """It would be one training several times."""
    with pytest.raises(SettingsError, match=rf"^{setting} has no effect without .* \({needed}\); leave it out$"):
        paper_experiment("dice", **parse_changes([setting, without]))
    assert paper_experiment("dice", **parse_changes([setting, needed])).changed_settings()


def test_a_pre_training_with_variants_needs_both():
    for name, flip, missing in (("dice-otsu", "merged", "pre-training"), ("dice-otsu-transfer", "none", "variants")):
        with pytest.raises(SettingsError, match=f"^pretrain_augmentation=yes has no effect without {missing} "):
            paper_experiment(name, pretrain_augmentation=True, flip=flip)
    assert paper_experiment("dice-otsu-transfer", pretrain_augmentation=True, flip="merged").variants == 2


def test_one_of_alpha_and_beta_may_be_zero():
    assert paper_experiment("focal-tversky", alpha=0.0, beta=1.0).alpha == 0.0
    assert paper_experiment("focal-tversky", alpha=1.0, beta=0.0).beta == 0.0


def test_json_round_trip():
    row = paper_experiment("focal-tversky-otsu", loss_classes=(2,))
    assert Experiment.from_json(json.loads(json.dumps(row.to_json())), "x") == row


def test_folders_stay_at_home():
    own = paper_experiment("dice", encoder_weights="/home/anna/vgg.h5", start_from="/home/anna/run/fold_01")
    assert "anna" not in str(own.public().to_json()) and own.public().start_from == "fold_01"
    assert own.changed_settings()["start_from"] == "/home/anna/run/fold_01"
    with pytest.raises(SettingsError, match="--from takes the place of the pre-training"):
        paper_experiment("dice-otsu-transfer", start_from="run/fold_01")


@pytest.mark.parametrize("content", [{}, {"name": "dice"}, {"name": "d", "loss_classes": [1], "colour": 1}])
def test_other_json_is_refused(content):
    with pytest.raises(RunError, match="run.json: not the settings of an experiment"):
        Experiment.from_json(content, "run.json")
