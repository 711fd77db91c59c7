"""What was prepared, in figures."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from doubleunet_bs.preparation.records import CaseRecord
from doubleunet_bs.preparation.settings import PreparationSettings


def summarise(records: Sequence[CaseRecord]) -> dict[str, Any]:
    """Figures of a set of cases.

    Returns:
        "cases", "patients", "groups" and "cancers" (name -> cases; None as "unknown"), "gain", "brightness" and
        "uptake_fraction" (minimum, median and maximum; None without cases), "warnings" (text with numbers replaced by
        N -> cases).
    """
    warnings: Counter[str] = Counter()
    for record in records:
        warnings.update({re.sub(r"\d+(\.\d+)?", "N", line) for line in record.warnings})
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
        + (f", counts of {settings.bin} x {settings.bin} pixels added" * (settings.bin > 1)),
        f"gain             {_shown(figures['gain'], '{:.2f}')}",
        f"mean brightness  {_shown(figures['brightness'], '{:.2f}')}",
    ]
    if settings.background != "none":
        lines.append(f"uptake kept      {_shown(figures['uptake_fraction'], '{:.1%}')} by {settings.background}")
    lines += [f"warning          {number} x {text}" for text, number in figures["warnings"].items()]
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"minimum": float(min(values)), "median": float(np.median(values)), "maximum": float(max(values))}


def _shown(spread: dict[str, float] | None, form: str) -> str:
    if spread is None:
        return "-"
    return ", ".join(f"{name} {form.format(value)}" for name, value in spread.items())
