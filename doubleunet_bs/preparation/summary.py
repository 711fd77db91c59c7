"""What was prepared, in figures."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from doubleunet_bs.preparation.records import CaseRecord
from doubleunet_bs.preparation.settings import PreparationSettings

# With thousands separators, as warnings about counts have them.
NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?")


def summarise(records: Sequence[CaseRecord]) -> dict[str, Any]:
    """Figures of a set of cases.

    Returns:
        "cases", "patients", "groups" and "cancers" (name -> cases; None as "unknown"), "gain", "brightness" and
        "uptake_fraction" (minimum, median and maximum; None without cases), "warnings" (text -> cases; texts that differ
        in their numbers alone are one, with the range of each number).
    """
    alike: defaultdict[str, list[tuple[str, ...]]] = defaultdict(list)
    cases: Counter[str] = Counter()
    for record in records:
        for line in record.warnings:
            alike[NUMBER.sub("\0", line)].append(tuple(NUMBER.findall(line)))
        cases.update({NUMBER.sub("\0", line) for line in record.warnings})
    warnings = Counter({_with_ranges(form, numbers): cases[form] for form, numbers in alike.items()})
    gains = [gain for record in records for gain in record.gains]
    return {
        "cases": len(records),
        "patients": len({record.patient for record in records}),
        "groups": dict(sorted(Counter(record.group for record in records).items())),
        "cancers": dict(sorted(Counter(record.cancer or "unknown" for record in records).items())),
        "gain": _spread(gains),
        "brightness": _spread([record.brightness for record in records]),
        "uptake_fraction": _spread([record.uptake_fraction for record in records]),
        "warnings": dict(warnings.most_common()),
    }


def summary_text(records: Sequence[CaseRecord], rejected: int, settings: PreparationSettings) -> str:
    """The same for a person, one figure a line."""
    figures = summarise(records)
    groups = ", ".join(f"{number} {name}" for name, number in figures["groups"].items())
    cancers = ", ".join(f"{number} {name}" for name, number in figures["cancers"].items())
    rows, columns = settings.image_shape
    lines = [
        f"cases            {figures['cases']} of {figures['patients']} patients ({groups}; {cancers})",
        f"rejected         {rejected}",
        f"image            {rows} x {columns}"
        + (f", counts of {settings.bin} x {settings.bin} pixels added before the gain" * (settings.bin > 1)),
        f"gain             {_shown(figures['gain'], '{:.2f}')}",
        f"mean brightness  {_shown(figures['brightness'], '{:.2f}')}",
    ]
    if settings.background != "none":
        lines.append(f"uptake kept      {_shown(figures['uptake_fraction'], '{:.1%}')} by {settings.background}")
    lines += [f"warning          {number} x {text}" for text, number in figures["warnings"].items()]
    return "\n".join(lines)


def _with_ranges(form: str, numbers: Sequence[tuple[str, ...]]) -> str:
    """A text whose numbers were taken out, with what stood in each place: one number, or the smallest to the largest."""
    parts = form.split("\0")
    text = parts[0]
    for part, values in zip(parts[1:], zip(*numbers, strict=True), strict=True):
        low, high = min(values, key=_value), max(values, key=_value)
        text += (low if low == high else f"{low} to {high}") + part
    return text


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"minimum": float(min(values)), "median": float(np.median(values)), "maximum": float(max(values))}


def _shown(spread: dict[str, float] | None, form: str) -> str:
    if spread is None:
        return "-"
    return ", ".join(f"{name} {form.format(value)}" for name, value in spread.items())
