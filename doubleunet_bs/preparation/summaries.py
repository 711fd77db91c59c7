"""What `prepare` and `inspect` tell a person: problems, figures of a cohort or a scan, pictures to look at."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from doubleunet_bs.constants import AIR, BENIGN, BENIGN_NAME, CROP_SHAPE, KEPT_ROWS, METASTATIC, NON_METASTATIC, VIEWS
from doubleunet_bs.display import (
    PHANTOM_NOTE,
    as_rgb,
    clinical_display,
    display_views,
    enlarged,
    outline,
    save_png,
    sides,
    with_names,
)
from doubleunet_bs.errors import counted, first_of, printable
from doubleunet_bs.preparation.case import PreparedCase
from doubleunet_bs.preparation.geometry import uncrop
from doubleunet_bs.preparation.records import PARTS, UNKNOWN_GROUP, CaseRecord
from doubleunet_bs.preparation.settings import PreparationSettings

if TYPE_CHECKING:  # pydicom stays out of what works on shards alone
    from doubleunet_bs.preparation.cohort import CohortResult
    from doubleunet_bs.scans.bone_scan import BoneScan
    from doubleunet_bs.scans.scan_files import Rejection

COLOURS = {AIR: (0, 0, 0), NON_METASTATIC: (70, 130, 180), METASTATIC: (220, 30, 30), BENIGN: (230, 159, 0)}
"""Of the classes in label pictures: black, blue, red, amber."""
SCALE = 2
"""Enlargement of the pictures: pixels for each pixel of the scan."""


def write_pictures(folder: Path, record: CaseRecord, grey: np.ndarray, labels: np.ndarray) -> None:
    """Write the prepared image (CASE.png), its classes as a palette image (CASE_labels.png) and `overlay`."""
    case = record.case
    save_png(folder / f"{case}.png", grey)
    palette = Image.fromarray(labels)
    palette.putpalette([channel for number in sorted(COLOURS) for channel in COLOURS[number]])
    save_png(folder / f"{case}_labels.png", palette)
    save_png(folder / f"{case}_overlay.png", overlay(grey, labels, record))


def overlay(grey: np.ndarray, labels: np.ndarray, record: CaseRecord) -> np.ndarray:
    """The image, dark uptake on white, with both classes outlined, below a strip with the names of what is shown.

    Returns:
        uint8 array of shape (2 * rows + those of the strip, 2 * columns, 3).
    """
    picture = as_rgb(enlarged(clinical_display(grey), SCALE))
    # Lesions are holes in the non-metastatic class; around them only their own line is drawn.
    picture[outline(labels > AIR, SCALE)] = COLOURS[NON_METASTATIC]
    picture[outline(labels == METASTATIC, SCALE)] = COLOURS[METASTATIC]
    legend = [("non-metastatic", COLOURS[NON_METASTATIC]), ("metastatic", COLOURS[METASTATIC])]
    if (labels == BENIGN).any():
        picture[outline(labels == BENIGN, SCALE)] = COLOURS[BENIGN]
        legend.append((BENIGN_NAME, COLOURS[BENIGN]))
    return with_names(picture, record.warnings, record.phantom, legend)


BODY = (0, 120, 200)
CROP = (60, 150, 60)
KNEE = (220, 30, 30)
UNUSED = (205, 190, 160)
"""Of what the network never sees."""
VIEW_SOURCES = {
    "view-code": "ViewCodeSequence",
    "private-view-name": "private names of the views",
    "orientation": "ImageOrientationPatient",
    "detector-angle": "StartAngle of the detectors",
    "frame-order": "order of the frames only",
    "picture-name": "names of the pictures",
}


def inspection(scan: "BoneScan", prepared: PreparedCase) -> dict[str, Any]:
    """Figures of a scan and its preparation, without anything of the patient. A missing view is None."""
    views: dict[str, Any] = {}
    for index, name in enumerate(VIEWS):
        if name in scan.missing_views:
            views[name] = None
            continue
        counts, body, place = getattr(scan, name), prepared.bodies[name], prepared.placements[name]
        views[name] = {
            "counts": int(counts.sum(dtype=np.int64)),
            "largest_pixel": int(counts.max()),
            "body_rows": [body.first_row, body.last_row],
            "body_columns": [body.first_column, body.last_column],
            "crop_top": place.top,
            "crop_left": place.left,
            "knee_row": place.top + KEPT_ROWS,
            "gain": prepared.gains[index],
        }
    return {
        "case": scan.case,
        "matrix": list(prepared.raw_shape),
        "pixel_spacing_mm": list(scan.pixel_spacing_mm) if scan.pixel_spacing_mm else None,
        "view_source": scan.view_source,
        "views": views,
        "brightness": prepared.brightness,
        "background": prepared.settings.background,
        "bin": prepared.settings.bin,
        "uptake_fraction": prepared.uptake_fraction,
        "warnings": list(prepared.warnings),
    }


def inspection_text(figures: dict[str, Any]) -> str:
    """The result of `inspection` as text, one figure a line."""
    rows, columns = figures["matrix"]
    spacing = figures["pixel_spacing_mm"]
    lines = [
        f"case             {figures['case']}",
        f"matrix           {rows} x {columns} per view, "
        + (f"pixels of {spacing[0]:.2f} x {spacing[1]:.2f} mm" if spacing else "pixel spacing unknown"),
        f"views            identified by: {VIEW_SOURCES.get(figures['view_source'], 'unknown')}",
    ]
    for name, view in figures["views"].items():
        if view is None:
            lines.append(f"{name:<16} missing")
            continue
        first, last = view["body_rows"]
        height = f", {(last - first + 1) * spacing[0] / 10:.0f} cm" if spacing else ""
        lines += [
            f"{name:<16} {view['counts']:,} counts, largest pixel {view['largest_pixel']:,}",
            f"  body           rows {first} to {last} ({last - first + 1}{height}), "
            f"columns {view['body_columns'][0]} to {view['body_columns'][1]}",
            f"  crop           {CROP_SHAPE[0]} x {CROP_SHAPE[1]} from row {view['crop_top']}, "
            f"column {view['crop_left']}{_outside(view, rows, columns)}",
            f"  used           the first {KEPT_ROWS} rows of the crop, down to row {view['knee_row'] - 1} of the view",
            f"  gain           {view['gain']:#.4g}",
        ]
    factor = figures["bin"]
    summed = f"; counts of {factor} x {factor} pixels added, before the gain" if factor > 1 else ""
    lines.append(f"mean brightness  {figures['brightness']:.2f} (the range is 7 to 14{summed})")
    if figures["background"] != "none":
        lines.append(f"uptake kept      {figures['uptake_fraction']:.1%} of the image by {figures['background']}")
    lines += [f"warning          {line}" for line in figures["warnings"]] or ["warnings         none"]
    return "\n".join(lines)


def inspection_line(name: str, figures: dict[str, Any] | None = None, width: int = 0) -> str:
    """One line of the table of a folder: the result of `inspection`, or without it the heads of the columns.

    The names are `width` characters wide, at least 32. Of a longer one the end is shown.
    """
    cells: tuple[str, ...] = ("anterior", "posterior", "body rows", "pixel mm", "gains", "warnings")
    if figures is not None:
        views = [view for view in figures["views"].values() if view]
        first, last = views[0]["body_rows"]
        spacing = figures["pixel_spacing_mm"]
        cells = (
            *(f"{view['counts']:,}" if view else "missing" for view in figures["views"].values()),
            str(last - first + 1),
            f"{spacing[0]:.2f}" if spacing else "unknown",
            ", ".join(f"{view['gain']:#.3g}" for view in views),
            "; ".join(figures["warnings"]) or "none",
        )
    widths = (11, 11, 9, 8, 12)
    columns = [f"{cell:>{size}}" for cell, size in zip(cells, widths, strict=False)]
    return "  ".join((_in_width(name, max(width, 32)), *columns, cells[-1]))


def _in_width(path: str, width: int) -> str:
    shown = path if len(path) <= width else "..." + path[3 - width :]
    return f"{shown:<{width}}"


def _outside(view: dict[str, Any], rows: int, columns: int) -> str:
    """A note where the crop does not lie within the view."""
    top, left = view["crop_top"], view["crop_left"]
    within = top >= 0 and left >= 0 and top + CROP_SHAPE[0] <= rows and left + CROP_SHAPE[1] <= columns
    return "" if within else " (pixels outside of the view are empty)"


def inspection_picture(scan: "BoneScan", prepared: PreparedCase) -> Image.Image:
    """Both raw views, dark uptake on white, with body bounding box and crop, twice as large.

    What is not used is shaded: outside of the crop, and below its row 640.
    """
    rows, columns = prepared.raw_shape
    margin, head = 8 * SCALE, 34 * SCALE
    picture = Image.new("RGB", (SCALE * columns * 2 + 3 * margin, SCALE * rows + head + margin), "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=9 * SCALE)
    views = display_views({name: getattr(scan, name) for name in VIEWS})
    for index, name in enumerate(VIEWS):
        left, top = margin + index * (SCALE * columns + margin), head
        missing = name in scan.missing_views
        shown = as_rgb(enlarged(views[name], SCALE))
        if not missing:
            place = prepared.placements[name]
            used = uncrop(np.ones((KEPT_ROWS, CROP_SHAPE[1]), bool), place, (rows, columns))
            unused = ~enlarged(used, SCALE)
            shown[unused] = (0.6 * shown[unused] + 0.4 * np.array(UNUSED)).astype(np.uint8)
        picture.paste(Image.fromarray(shown), (left, top))
        draw.rectangle((left - 1, top - 1, left + SCALE * columns, top + SCALE * rows), outline=(160, 160, 160))
        draw.text((left, head - 13 * SCALE), f"{name}: missing" if missing else name, fill="black", font=font)
        if missing:
            continue
        for edge, side, anchor in zip((12, columns - 12), sides(name, prepared.warnings), ("la", "ra"), strict=True):
            draw.text((left + SCALE * edge, top + 3 * SCALE), side, fill=(60, 60, 60), font=font, anchor=anchor)
        body = prepared.bodies[name]
        box = (body.first_column, body.first_row, body.last_column + 1, body.last_row + 1)
        crop = (place.left, place.top, place.left + CROP_SHAPE[1], place.top + CROP_SHAPE[0])
        for (x0, y0, x1, y1), colour, width in ((crop, CROP, SCALE), (box, BODY, 1)):
            # The part of the crop that lies outside of the view is padding and cannot be drawn.
            x0, y0, x1, y1 = max(0, x0), max(0, y0), min(columns, x1), min(rows, y1)
            corners = (left + SCALE * x0, top + SCALE * y0, left + SCALE * x1 - 1, top + SCALE * y1 - 1)
            draw.rectangle(corners, outline=colour, width=width)
        knee = top + SCALE * (place.top + KEPT_ROWS)
        draw.line((left, knee, left + SCALE * columns, knee), fill=KNEE, width=SCALE)
    x, knee_text = margin, f"row {KEPT_ROWS} of the crop"
    for text, colour in (("body", BODY), ("crop", CROP), (knee_text, KNEE), ("not used", UNUSED)):
        draw.rectangle((x, 6 * SCALE, x + 8 * SCALE, 12 * SCALE), fill=colour)
        draw.text((x + 11 * SCALE, 3 * SCALE), text, fill="black", font=font)
        x += 11 * SCALE + int(draw.textlength(text, font=font)) + 12 * SCALE
    if scan.phantom:
        draw.text((x, 3 * SCALE), PHANTOM_NOTE, fill="black", font=font)
    return picture


MOST_LINES = 50
WIDEST_PATH = 60


def rejection_table(rejected: "Sequence[Rejection]") -> str:
    """A table of at most 50 rejected files for a terminal, and a line with the number of the others."""
    shown = rejected[:MOST_LINES]
    width = min(WIDEST_PATH, max((len(file.path) for file in shown), default=4))
    lines = [f"{'FILE':<{width}}  {'REASON':<20}  WHAT TO KNOW"]
    for file in shown:
        lines.append(f"{_in_width(file.path, width)}  {file.reason:<20}  {file.message}")
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
        f"cases            {counted(len(records), 'scan')} of {counted(patients, 'patient')} ({groups}; {cancers})",
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
