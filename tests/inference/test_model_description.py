"""The metadata of a model: written, read again, and refused with the field that is damaged."""

import dataclasses

import pytest
from intensity_run import description
from pydicom.uid import UID

from doubleunet_bs.errors import RunError
from doubleunet_bs.inference.model_description import describe_ensemble, device_uid, parse_description
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.runs.experiments import paper_experiment

COUNTS = {"patients": 8, "scans": 9, "normal_scans": 1, "cancers": {"breast": 7, "not stated": 1}}


def ensemble():
    return describe_ensemble([dataclasses.replace(description(), fold=fold) for fold in (1, 2)])


def test_written_and_read():
    counted = dataclasses.replace(description(), training=COUNTS, validation=COUNTS, cohort=COUNTS)
    for model in (description(), description(classes=1), ensemble(), counted, describe_ensemble([counted, counted])):
        assert parse_description(model.to_json(), "model.json") == model


@pytest.mark.parametrize("what", [description, ensemble])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("fold", "one"),
        ("image_shape", [0, 16]),
        ("weights_sha256", "abc"),
        ("experiment", {}),
        ("best_epoch", True),
        ("validation_f1", 7),
        ("validation_f1", float("nan")),
        ("data_fingerprint", None),
        ("version", 1),
        ("preparation", []),
        # What becomes a path, a size or a promise.
        ("experiment", {"name": "../../up", "classes": 3}),
        ("experiment", {"name": "dice", "classes": True}),
        ("image_shape", [10**9, 512]),
        ("version", "1" * 1000),
        ("data_fingerprint", "two\nlines"),
    ],
)
def test_a_damaged_field_is_named(what, field, value):
    content = what().to_json()
    message = f"model.json: damaged, {field} is missing or impossible: export the fold again"
    with pytest.raises(RunError) as caught:
        parse_description({**content, field: value}, "model.json")
    assert str(caught.value) == message
    del content[field]
    with pytest.raises(RunError) as caught:
        parse_description(content, "model.json")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2 of package version .*; version .* reads format 1: export the fold again"),
        ({"preparation": {"bin": 3}}, "damaged, preparation settings must be exactly"),
        ({"trained_on": "mice"}, "trained_on is missing or impossible"),
        ({"cohort": {**COUNTS, "scans": -1}}, "cohort is missing or impossible"),
        ({"cohort": {"scans": 1}}, "cohort is missing or impossible"),
        ({"cohort": {**COUNTS, "note": "Jane Doe"}}, "cohort is missing or impossible"),
        ({"training": {**COUNTS, "cancers": {"Jane Doe": 1}}}, "training is missing or impossible"),
        ({"members": ensemble().to_json()["members"][:1]}, "fold is missing"),
        ({**ensemble().to_json(), "members": [{"fold": 1}, {"fold": 2}]}, "weights_s"),
        ({"members": ensemble().to_json()["members"]}, "fold is missing or impossible"),
    ],
)
def test_other_damage(change, message):
    with pytest.raises(RunError, match=f"model.json: .*{message}"):
        parse_description({**description().to_json(), **change}, "model.json")
    with pytest.raises(RunError, match="model.json: not a model description"):
        parse_description([], "model.json")


def test_only_an_unchanged_row_of_the_paper_has_its_name():
    def name(bin=1, **changes):
        experiment = paper_experiment("dice-otsu", **changes).to_json()
        model = dataclasses.replace(description(), experiment=experiment, preparation=PreparationSettings(bin=bin))
        return model.name

    assert name() == "dice-otsu, fold 1"
    assert name(epochs=499) == name(bin=2) == "dice-otsu (changed settings), fold 1"


@pytest.mark.parametrize(
    "trained_on, said",
    [
        ("phantoms", ", trained on phantoms"),
        ("mixed", ", trained on phantoms as well"),
        ("patients", ""),
    ],
)
def test_a_model_of_phantoms_says_so(trained_on, said):
    model = dataclasses.replace(description(), trained_on=trained_on)
    assert model.name.endswith(f"fold 1{said}")
    assert parse_description(model.to_json(), "model.json") == model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preparation": PreparationSettings(bin=4, background="log")}, "preparation settings"),
        ({"image_shape": (320, 256)}, "image sizes"),
        ({"experiment": {"name": "baseline", "classes": 1}}, "classes"),
    ],
)
def test_members_must_share(change, message):
    with pytest.raises(RunError, match=f"different {message}"):
        describe_ensemble([description(), dataclasses.replace(description(), fold=2, **change)])


def test_quality_and_training_in_one_line():
    model = dataclasses.replace(description(), training=COUNTS, experiment=paper_experiment("dice").to_json())
    assert model.quality == "validation F1 50.0 % (fold 1 of 10)"
    assert model.training_summary == "9 scans of 8 patients (breast 7, not stated 1), 1 of the scans normal"
    phantoms = dataclasses.replace(model, trained_on="phantoms", validation_f1=None)
    assert phantoms.quality == "validation F1 undefined on phantoms (fold 1 of 10)"
    assert phantoms.training_summary.startswith("9 scans of 8 phantoms")
    further = dataclasses.replace(model, pretraining=COUNTS, experiment={**model.experiment, "start_from": "run"})
    assert further.training_summary.endswith("of the scans normal; started from the weights of run")
    assert "; pre-trained on 9 scans of 8 patients" in further.training_summary
    both = describe_ensemble([model, dataclasses.replace(model, fold=2, validation_f1=0.25)])
    assert both.quality == "validation F1 50.0 %, 25.0 % (folds 1, 2 of 10)"


@pytest.mark.parametrize(
    ("f1", "said"), [(0.0, "no metastasis"), (None, "no metastasis"), (0.001, "almost no"), (0.05, None)]
)
def test_a_fold_that_found_nothing_is_marked(f1, said):
    poor = dataclasses.replace(description(), validation_f1=f1)
    good = dataclasses.replace(description(), fold=2)
    assert good.quality_warning is None
    for model in (poor, describe_ensemble([poor, good])):
        warning = model.quality_warning
        assert warning is None if said is None else (said in warning and "(fold 1: F1 " in warning)
        assert model.to_json()["quality_warning"] == warning


def test_a_model_of_the_skeleton_has_to_find_half_of_the_bone():
    experiment = description().experiment | {"classes": 13}
    poor, fair = (dataclasses.replace(description(), experiment=experiment, validation_f1=f1) for f1 in (0.16, 0.5))
    assert "too little bone on its own validation scans (fold 1: F1 16.0 %)" in poor.quality_warning
    assert fair.quality_warning is None


def test_the_warning_of_phantoms_says_so():
    model = dataclasses.replace(description(), validation_f1=0.0, trained_on="phantoms")
    assert "on its own validation scans of phantoms (fold 1: F1 0.0 %)" in model.quality_warning
    with pytest.raises(RunError, match=r"RUN: found no metastasis .*: train it further, or use --force"):
        model.check_quality("RUN", "train it further")


def test_the_device_uid_follows_from_the_weights():
    uids = {device_uid(letter * 64) for letter in "0123456789abcdef"}
    assert len(uids) == 16 and all(UID(uid).is_valid and len(uid) <= 64 for uid in uids)
    assert description().to_json()["device_uid"] == device_uid("0" * 64)
    # Fixed for ever: files in archives name it.
    assert device_uid("0" * 64) == "2.25.146339877770346408700311673019782773791"
