"""The metadata of a model: written, read again, and refused with the field that is damaged."""

import dataclasses

import pytest
from intensity_run import description

from doubleunet_bs.errors import RunError
from doubleunet_bs.inference.model_description import describe_ensemble, parse_description
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.training.experiments import paper_experiment


def ensemble():
    return describe_ensemble([dataclasses.replace(description(), fold=fold) for fold in (1, 2)])


def test_written_and_read():
    for model in (description(), description(classes=1), ensemble()):
        assert parse_description(model.to_json(), "model.json") == model


def test_older_descriptions_lack_what_was_trained_on():
    content = description().to_json()
    del content["trained_on"], content["endpoints"]
    assert parse_description(content, "model.json") == description()


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
        ({"members": ensemble().to_json()["members"][:1]}, "members is missing"),
        ({"members": [{"fold": 1}, {"fold": 2}], "fold": None, "best_epoch": None, "validation_f1": None}, "weights_s"),
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
        ("unknown", ""),
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
