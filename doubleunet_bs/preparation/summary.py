"""What `prepare` says on the terminal: the problems as a table, and a summary of what went in."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from doubleunet_bs.errors import counted
from doubleunet_bs.preparation.patients import first_of
from doubleunet_bs.preparation.records import PARTS, UNKNOWN_GROUP, CaseRecord
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.scans.pseudonyms import printable
from doubleunet_bs.scans.scan_files import Rejection

if TYPE_CHECKING:
    from doubleunet_bs.preparation.cohort import CohortResult

MOST_LINES = 50
WIDEST_PATH = 60


def rejection_table(rejected: Sequence[Rejection]) -> str:
    """A table of at most 50 rejected files for a terminal, and a line with the number of the others."""
    shown = rejected[:MOST_LINES]
    width = min(WIDEST_PATH, max((len(file.path) for file in shown), default=4))
    lines = [f"{'FILE':<{width}}  {'REASON':<20}  WHAT TO KNOW"]
    for file in shown:
        path = file.path if len(file.path) <= width else "..." + file.path[3 - width :]
        lines.append(f"{path:<{width}}  {file.reason:<20}  {file.message}")
    if len(rejected) > MOST_LINES:
        lines.append(f"... and {len(rejected) - MOST_LINES} more")
    return printable("\n".join(lines))


def summary_text(result: "CohortResult", settings: PreparationSettings) -> str:
    """Figures of the prepared cases, at least one, for a person. Names files: for the terminal of their owner only."""
    records = result.records
    groups = _numbers(record.group for record in records)
    cancers = _numbers(record.cancer or "unknown" for record in records)
    rows, columns = settings.image_shape
    binned = f", counts of {settings.bin} x {settings.bin} pixels added before the gain" if settings.bin > 1 else ""
    patients = len({record.patient for record in records})
    gains = [gain for record in records for gain in record.gains]
    lines = [
        f"cases            {len(records)} of {patients} patients ({groups}; {cancers})",
        f"rejected         {counted(result.rejected_scans, 'scan')}",
        f"image            {rows} x {columns}{binned}",
        f"gain             {_spread(gains, '.2f' if min(gains) >= 0.1 else '.2g')}",
        f"mean brightness  {_spread([record.brightness for record in records], '.2f')}",
    ]
    if settings.background != "none":
        kept = _spread([record.uptake_fraction for record in records], ".1%")
        lines.append(f"uptake kept      {kept} by {settings.background}")
    if parts := Counter((record.part, record.group) for record in records if record.part):
        names = {"positive": "with metastases", "negative": "normal", UNKNOWN_GROUP: "without a class"}
        groups_there = [group for group in names if any(parts[part, group] for part in PARTS)]
        said = (" + ".join(str(parts[part, group]) for group in groups_there) + f" {part}" for part in reversed(PARTS))
        meaning = " + ".join(names[group] for group in groups_there)
        lines.append(f"published split  {', '.join(said)} ({meaning})")
    if settings.benign == "own":
        with_benign = sum(record.benign_pixels > 0 for record in records)
        warned = "" if with_benign else ": nothing to train on, prepare without --benign own"
        lines.append(f"benign           a class of its own, in {counted(with_benign, 'scan')}{warned}")
    lines += [f"data             {source.text.removeprefix('Data: ')}" for source in result.sources]
    if skeletons := sum(record.has_regions for record in records):
        lines.append(f"skeletons        {skeletons} annotated")
    lines += [f"warning          {note}" for note in result.notes]
    for text, cases in gathered_warnings(records).items():
        lines.append(f"warning          {len(cases)} x {text} ({first_of([result.files[case] for case in cases])})")
    return printable("\n".join(lines))


def _numbers(names: Iterable[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(Counter(names).items()))


def _spread(values: Sequence[float], form: str) -> str:
    return f"minimum {min(values):{form}}, median {float(np.median(values)):{form}}, maximum {max(values):{form}}"


# With thousands separators, as warnings about counts have them.
_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?")


def gathered_warnings(records: Sequence[CaseRecord]) -> dict[str, list[str]]:
    """Text of a warning -> the cases that carry it, the most frequent first; "..." for numbers that differ."""
    texts: defaultdict[str, set[str]] = defaultdict(set)
    cases: defaultdict[str, list[str]] = defaultdict(list)
    for record in records:
        for text in dict.fromkeys(record.warnings):
            form = _NUMBER.sub("...", text)
            texts[form].add(text)
            cases[form] += [record.case] if record.case not in cases[form][-1:] else []
    ordered = sorted(cases, key=lambda form: -len(cases[form]))
    return {form if len(texts[form]) > 1 else next(iter(texts[form])): cases[form] for form in ordered}
