"""The description of a model from its JSON: what becomes a path, a size or a promise is checked."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from doubleunet_bs import __version__
from doubleunet_bs.constants import CANCERS
from doubleunet_bs.errors import DatasetError, RunError
from doubleunet_bs.files import read_json
from doubleunet_bs.inference.model_description import DESCRIPTION, FORMAT, NAME, Member, ModelDescription
from doubleunet_bs.preparation.records import MIXED, NOT_STATED, PATIENTS, PHANTOMS, UNKNOWN
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.runs.experiments import CHOICES

LONGEST_SIDE = 2048
"""Of an image that a description may promise, in pixels. A scan has 640 x 512."""


def read_description(path: str | os.PathLike) -> ModelDescription:
    """Read a `model.json`: see `parse_description`."""
    return parse_description(read_json(path, RunError, "model description"), str(path))


def describe_saved_model(path: Path) -> ModelDescription:
    """The description inside a SavedModel folder.

    Raises:
        RunError: not a SavedModel folder of this package, or of another format.
    """
    if not (path / DESCRIPTION).is_file():
        raise RunError(f"{path}: not a model exported by this package, {DESCRIPTION} is missing")
    return read_description(path / DESCRIPTION)


def parse_description(content: Any, path: str) -> ModelDescription:
    """The inverse of `ModelDescription.to_json`. What becomes a path, a size or a promise is checked here.

    Args:
        content: what JSON gave.
        path: where it is from, for the messages.

    Raises:
        RunError: it is damaged, which names the field, or it has another format.
    """
    if not isinstance(content, dict) or "format" not in content:
        raise RunError(f"{path}: not a model description of this package")
    if content["format"] != FORMAT:
        raise RunError(
            f"{path}: format {str(content['format'])[:20]} of package version {str(content.get('version'))[:20]}; "
            f"version {__version__} reads format {FORMAT}: export the fold again with it"
        )

    def field(name: str, is_possible: Callable[[Any], bool], of: dict[str, Any] | None = None) -> Any:
        value = (content if of is None else of).get(name, _MISSING)
        if not is_possible(value):
            raise RunError(f"{path}: damaged, {name} is missing or impossible: export the fold again")
        return value

    def fold(of: dict[str, Any]) -> dict[str, Any]:
        of = {"training": None, "validation": None, **of}
        return {
            "fold": field("fold", lambda value: type(value) is int and 1 <= value <= 999, of),
            "weights_sha256": field("weights_sha256", _is_hash, of),
            "best_epoch": field("best_epoch", lambda value: type(value) is int, of),
            "validation_f1": field("validation_f1", _is_figure, of),
            "training": field("training", _is_cohort, of),
            "validation": field("validation", _is_cohort, of),
        }

    content = {"members": [], "trained_on": UNKNOWN, "cohort": None, "pretraining": None, **content}
    members = field("members", lambda value: isinstance(value, list) and len(value) != 1 and all(map(_is_dict, value)))
    if members:
        own = dict.fromkeys(("fold", "best_epoch", "validation_f1"))
        own = {name: field(name, lambda value: value is None) for name in own}
        own["weights_sha256"] = field("weights_sha256", _is_hash)
    else:
        own = fold(content)
    preparation = field("preparation", _is_dict)
    try:
        settings = PreparationSettings.from_json(preparation)
    except DatasetError as cause:
        raise RunError(f"{path}: damaged, {cause}: export the fold again") from None
    return ModelDescription(
        **own,
        experiment=field("experiment", _is_experiment),
        preparation=settings,
        image_shape=tuple(field("image_shape", _is_shape)),
        data_fingerprint=field("data_fingerprint", _is_text),
        version=field("version", _is_text),
        members=tuple(Member(**fold(one)) for one in members),
        trained_on=field("trained_on", lambda value: value in (PHANTOMS, PATIENTS, MIXED, UNKNOWN)),
        cohort=field("cohort", _is_cohort),
        pretraining=field("pretraining", _is_cohort),
    )


_MISSING = object()
_COHORT = ("patients", "scans", "normal_scans", "cancers")


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 128 and value.isprintable()


def _is_figure(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and 0 <= value <= 1)


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(length) is int and 0 < length <= LONGEST_SIDE for length in value)
    )


def _is_experiment(value: Any) -> bool:
    """The name becomes part of a path on a model server."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("name"), str)
        and NAME.fullmatch(value["name"]) is not None
        and type(value.get("classes")) is int
        and value["classes"] in CHOICES["classes"]
        and len(str(value)) < 10_000
    )


def _is_cohort(value: Any) -> bool:
    """From `count_cohort`, or {"scans"} alone."""
    if value is None:
        return True
    if not _is_dict(value) or set(value) not in (set(_COHORT), {"scans"}):
        return False
    cancers = value.get("cancers", {})
    if not _is_dict(cancers) or not set(cancers) <= {*CANCERS, NOT_STATED}:
        return False
    numbers = [*(value[name] for name in value if name != "cancers"), *cancers.values()]
    return all(type(number) is int and 0 <= number < 10**9 for number in numbers)
