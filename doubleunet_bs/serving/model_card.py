"""The model card beside an exported model: `model_card.md` to read, `model_card.json` with the same content.

Made from the run alone. It holds counts of patients, nothing of any of them.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from doubleunet_bs.constants import KEPT_ROWS, RAW_SHAPE
from doubleunet_bs.errors import RunError
from doubleunet_bs.evaluation.scores.fold_scores import SCORES, read_scores
from doubleunet_bs.files import write_json, write_text
from doubleunet_bs.inference.model_description import (
    INTENDED_USE,
    Member,
    ModelDescription,
    describe_cohort,
    device_uid,
    with_unit,
)
from doubleunet_bs.inference.saved_model_check import hash_files
from doubleunet_bs.preparation.records import MIXED, PHANTOMS
from doubleunet_bs.runs.run_folder import ABOUT_DATA, Run

CARD, CARD_JSON = "model_card.md", "model_card.json"
FORMAT = 1
LONGEST_TEXT = 10_000
"""Characters of `about_data.txt` that go into a card."""

PURPOSE = "Outlines areas on planar whole-body bone scans (Tc-99m, anterior and posterior) that may be bone metastases."
PURPOSE_BENIGN = "It outlines benign lesions as well."
PURPOSE_SKELETON = "Divides the skeleton on planar whole-body bone scans (Tc-99m, anterior and posterior) into regions."
METHOD = (
    "Double U-Net in TensorFlow, after Chen et al. 2023, Bone Metastases Lesion Segmentation on Breast Cancer Bone "
    "Scan Images with Negative Sample Training, Diagnostics 13:3042, doi:10.3390/diagnostics13193042"
)
FAILURES = "Not validated for clinical use. It misses lesions and marks benign uptake."
FAILURES_SKELETON = "Not validated for clinical use. Borders between regions are approximate, and uptake can move them."
LIMITS = (
    "Probabilities are not calibrated. Small differences between them mean nothing.",
    f"Views of {RAW_SHAPE[0]} x {RAW_SHAPE[1]} pixels, {KEPT_ROWS} rows of which are used: down to below the knee.",
    "Scanners, tracers, protocols and cancers other than those of the training have not been tried.",
    "The figures pool pixels over scans of the same source as the training. Elsewhere they may be lower.",
)
OF_PHANTOMS = (
    "Trained on phantoms, synthetic scans that are computed: its figures on phantoms show that the software works and "
    "say nothing about patients."
)


def write_model_card(folder: Path, description: ModelDescription, run: Run) -> None:
    """Write both files into a SavedModel folder.

    Args:
        folder: the SavedModel, complete.
        description: of the model in it.
        run: where it was trained.

    Raises:
        RunError: `about_data.txt` of the run is not readable text.
    """
    card = model_card(description, run) | {"files_sha256": hash_files(folder)}
    write_json(folder / CARD_JSON, card)
    write_text(folder / CARD, card_page(card))


def model_card(description: ModelDescription, run: Run) -> dict[str, Any]:
    """The content of `model_card.json`, without the hashes of the files."""
    trained_on = description.trained_on
    counts = {name: getattr(description, name) for name in ("training", "validation", "cohort", "pretraining")}
    return {
        "format": FORMAT,
        "name": description.name,
        "version": description.version,
        "purpose": _purpose(description),
        "intended_use": INTENDED_USE,
        "method": METHOD,
        "quality_warning": description.quality_warning,
        "trained_on": trained_on,
        "cohorts": counts,
        "data": _about_data(run, trained_on),
        "figures_are": f"{'bone' if description.is_skeleton else 'metastatic'} pixels, pooled over the scans",
        "figures_by_fold": [_fold(one, None if description.is_skeleton else run) for one in description.folds],
        "experiment": description.experiment,
        "preparation": description.preparation.to_json(),
        "limits": [
            *([OF_PHANTOMS] if trained_on in (PHANTOMS, MIXED) else []),
            FAILURES_SKELETON if description.is_skeleton else FAILURES,
            *LIMITS,
        ],
        "weights_sha256": description.weights_sha256,
        "data_fingerprint": description.data_fingerprint,
        "device_uid": device_uid(description.weights_sha256),
    }


def _purpose(description: ModelDescription) -> str:
    if description.is_skeleton:
        return PURPOSE_SKELETON
    return f"{PURPOSE} {PURPOSE_BENIGN}" if description.has_benign else PURPOSE


def card_page(card: dict[str, Any]) -> str:
    """`model_card.md` from the content of `model_card.json`. On phantoms, every line with a figure says phantoms."""
    trained_on = card["trained_on"]
    on = {PHANTOMS: " on phantoms", MIXED: " on patients and phantoms"}.get(trained_on, "")
    cohorts = [
        f"- {label}: {describe_cohort(card['cohorts'][name], trained_on)}"
        for name, label in (
            ("training", "trained on"),
            ("validation", "best epoch chosen on"),
            ("cohort", "all scans of the cross-validation"),
            ("pretraining", "pre-trained on"),
        )
        if card["cohorts"][name]
    ]
    if start := card["experiment"].get("start_from"):
        cohorts.append(f"- started from the weights of: {start}")
    files = [f"- `{name}`: `{value}`" for name, value in card["files_sha256"].items()]
    lines = [
        f"# Model card: {card['name']}",
        "",
        *([f"**{card['quality_warning']}**", ""] if card["quality_warning"] else []),
        *_section("Intended use", [card["purpose"], "", f"**{card['intended_use']}**", "", f"{card['method']}."]),
        *_section("Training and validation", cohorts),
        *_section("Licence and citation of the data", [card["data"]]),
        *_section("Figures by fold", _figures(card, on)),
        *_section("Limits", [f"- {limit}" for limit in card["limits"]]),
        *_section("Preparation", [f"- {name}: {_text(value)}" for name, value in card["preparation"].items()]),
        *_section("Training settings", [f"- {name}: {_text(value)}" for name, value in card["experiment"].items()]),
        *_section(
            "Identification",
            [
                f"- SHA-256 of the weights: `{card['weights_sha256']}`",
                f"- DICOM Device UID: `{card['device_uid']}`",
                f"- fingerprint of the training data: `{card['data_fingerprint']}`",
                f"- doubleunet_bs {card['version']}",
                *files,
            ],
        ),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _section(title: str, lines: Iterable[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""]


def _figures(card: dict[str, Any], on: str) -> list[str]:
    kind = f" ({on.removeprefix(' on ')})" if on else ""
    rows = []
    for fold in card["figures_by_fold"]:
        test = fold["test"]
        figures = (
            [with_unit(test[name]) for name in ("precision", "sensitivity", "f1")] if test else ["not evaluated"] * 3
        )
        scans = f"{test['scans']}" if test else "-"
        cells = [f"{fold['fold']}{kind}", str(fold["best_epoch"]), with_unit(fold["validation_f1"]), scans, *figures]
        rows.append(f"| {' | '.join(cells)} |")
    return [
        f"| fold{kind} | epoch | validation F1 | test scans | test precision | test sensitivity | test F1{on} |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"{card['figures_are'].capitalize()}{kind}. The validation scans chose the epoch: their F1 is too high.",
        "Test scans had no part in the training. `evaluate` computes their figures, `serve-package` enters them here.",
    ]


def _fold(member: Member, run: Run | None) -> dict[str, Any]:
    """One fold with its test figures, where it was evaluated with these weights. None: of a skeleton, not entered."""
    path = run and run.fold_path(member.fold) / SCORES
    test = None
    if path and path.is_file():
        scores = read_scores(path)
        if (scores.about.get("model") or {}).get("weights_sha256") == member.weights_sha256:
            precision, sensitivity, f1 = scores.pooled.figures
            test = {"scans": len(scores.scans), "precision": precision, "sensitivity": sensitivity, "f1": f1}
    return {
        "fold": member.fold,
        "best_epoch": member.best_epoch,
        "weights_sha256": member.weights_sha256,
        "validation_f1": member.validation_f1,
        "test": test,
    }


def _about_data(run: Run, trained_on: str) -> str:
    path = run.path / ABOUT_DATA
    if path.is_file():
        try:
            text = path.read_text("utf-8")
        except (OSError, ValueError) as cause:
            raise RunError(f"{path}: not readable as UTF-8 text ({cause})") from None
        if text.strip():
            return " ".join([text.strip()[:LONGEST_TEXT], *(source.text for source in run.sources)])
    if run.sources:
        return " ".join(source.text for source in run.sources)
    if trained_on == PHANTOMS:
        return "Phantoms computed by doubleunet_bs (Apache-2.0). No scan of a patient."
    return (
        f"Not recorded. Write licence, citation and approval into `{ABOUT_DATA}` in the run folder, "
        "and package the fold again."
    )


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} = {number}" for name, number in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)
