"""What was understood of a scan: as a JSON object, as text, and as a picture."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from doubleunet_bs.constants import (
    AIR,
    BENIGN,
    BENIGN_NAME,
    CROP_SHAPE,
    KEPT_ROWS,
    METASTATIC,
    NON_METASTATIC,
    VIEWS,
)
from doubleunet_bs.display import (
    PHANTOM_NOTE,
    Colour,
    as_rgb,
    clinical_display,
    display_views,
    enlarged,
    outline,
    save_png,
    sides,
    with_names,
)
from doubleunet_bs.preparation.case import PreparedCase
from doubleunet_bs.preparation.records import CaseRecord

if TYPE_CHECKING:  # pydicom stays out of what works on shards alone
    from doubleunet_bs.scans.bone_scan import BoneScan

COLOURS = {AIR: (0, 0, 0), NON_METASTATIC: (70, 130, 180), METASTATIC: (220, 30, 30), BENIGN: (230, 159, 0)}
"""Of the classes in label pictures: black, blue, red, amber."""


def write_pictures(folder: Path, record: CaseRecord, grey: np.ndarray, labels: np.ndarray) -> None:
    """Write the prepared image (CASE.png), its classes as a palette image (CASE_labels.png) and `overlay`."""
    case = record.case
    save_png(folder / f"{case}.png", grey)
    palette = Image.fromarray(labels)
    palette.putpalette([channel for number in sorted(COLOURS) for channel in COLOURS[number]])
    save_png(folder / f"{case}_labels.png", palette)
    save_png(folder / f"{case}_overlay.png", overlay(grey, labels, record))


def overlay(grey: np.ndarray, labels: np.ndarray, record: CaseRecord, scale: int = 2) -> np.ndarray:
    """The image, dark uptake on white, with both classes outlined, below a strip with the names of what is shown.

    Returns:
        uint8 array of shape (scale * rows + those of the strip, scale * columns, 3).
    """
    picture = as_rgb(enlarged(clinical_display(grey), scale))
    # Lesions are holes in the non-metastatic class; around them only their own line is drawn.
    picture[outline(labels > AIR, scale)] = COLOURS[NON_METASTATIC]
    picture[outline(labels == METASTATIC, scale)] = COLOURS[METASTATIC]
    legend = [("non-metastatic", COLOURS[NON_METASTATIC]), ("metastatic", COLOURS[METASTATIC])]
    if (labels == BENIGN).any():
        picture[outline(labels == BENIGN, scale)] = COLOURS[BENIGN]
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
            f"  gain           {view['gain']:.3f}",
        ]
    factor = figures["bin"]
    summed = f"; counts of {factor} x {factor} pixels added, before the gain" if factor > 1 else ""
    lines.append(f"mean brightness  {figures['brightness']:.2f} (the range is 7 to 14{summed})")
    if figures["background"] != "none":
        lines.append(f"uptake kept      {figures['uptake_fraction']:.1%} of the image by {figures['background']}")
    lines += [f"warning          {line}" for line in figures["warnings"]] or ["warnings         none"]
    return "\n".join(lines)


def inspection_line(name: str, figures: dict[str, Any] | None = None) -> str:
    """One line of the table of a folder: the result of `inspection`, or without it the heads of the columns."""
    cells: tuple[str, ...] = ("anterior", "posterior", "body rows", "pixel mm", "gains", "warnings")
    if figures is not None:
        views = [view for view in figures["views"].values() if view]
        first, last = views[0]["body_rows"]
        spacing = figures["pixel_spacing_mm"]
        cells = (
            *(f"{view['counts']:,}" if view else "missing" for view in figures["views"].values()),
            str(last - first + 1),
            f"{spacing[0]:.2f}" if spacing else "unknown",
            ", ".join(f"{view['gain']:.2f}" for view in views),
            "; ".join(figures["warnings"]) or "none",
        )
    widths = (11, 11, 9, 8, 12)
    columns = [f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=False)]
    return "  ".join((f"{name:<32}", *columns, cells[-1]))


def _outside(view: dict[str, Any], rows: int, columns: int) -> str:
    """A note where the crop does not lie within the view."""
    top, left = view["crop_top"], view["crop_left"]
    within = top >= 0 and left >= 0 and top + CROP_SHAPE[0] <= rows and left + CROP_SHAPE[1] <= columns
    return "" if within else " (pixels outside of the view are empty)"


def inspection_picture(scan: "BoneScan", prepared: PreparedCase, scale: int = 2) -> Image.Image:
    """Both raw views, dark uptake on white, with body bounding box and crop, `scale` times as large.

    What is not used is shaded: outside of the crop, and below its row 640. The lines of the box are dashed, so that
    those of the crop are seen where both coincide.
    """
    rows, columns = prepared.raw_shape
    margin, head = 8 * scale, 34 * scale
    picture = Image.new("RGB", (scale * columns * 2 + 3 * margin, scale * rows + head + margin), "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=9 * scale)
    views = display_views({name: getattr(scan, name) for name in VIEWS})
    for index, name in enumerate(VIEWS):
        left, top = margin + index * (scale * columns + margin), head
        missing = name in scan.missing_views
        shown = as_rgb(enlarged(views[name], scale))
        if not missing:
            place = prepared.placements[name]
            used = np.zeros((rows, columns), bool)
            used[max(0, place.top) : max(0, place.top + KEPT_ROWS), max(0, place.left) : place.left + CROP_SHAPE[1]] = (
                True
            )
            unused = ~enlarged(used, scale)
            shown[unused] = (0.6 * shown[unused] + 0.4 * np.array(UNUSED)).astype(np.uint8)
        picture.paste(Image.fromarray(shown), (left, top))
        draw.rectangle((left - 1, top - 1, left + scale * columns, top + scale * rows), outline=(160, 160, 160))
        draw.text((left, head - 13 * scale), f"{name}: missing" if missing else name, fill="black", font=font)
        if missing:
            continue
        for edge, side, anchor in zip((12, columns - 12), sides(name, prepared.warnings), ("la", "ra"), strict=True):
            draw.text((left + scale * edge, top + 3 * scale), side, fill=(60, 60, 60), font=font, anchor=anchor)
        body = prepared.bodies[name]
        box = (body.first_column, body.first_row, body.last_column + 1, body.last_row + 1)
        crop = (place.left, place.top, place.left + CROP_SHAPE[1], place.top + CROP_SHAPE[0])
        for (x0, y0, x1, y1), colour, dash in ((crop, CROP, 1), (box, BODY, 6 * scale)):
            # The part of the crop that lies outside of the view is padding and cannot be drawn.
            x0, y0, x1, y1 = max(0, x0), max(0, y0), min(columns, x1), min(rows, y1)
            corners = (left + scale * x0, top + scale * y0, left + scale * x1 - 1, top + scale * y1 - 1)
            _draw_dashed(draw, corners, colour, dash, max(1, scale // 2))
        knee = top + scale * (place.top + KEPT_ROWS)
        draw.line((left, knee, left + scale * columns, knee), fill=KNEE, width=scale)
    x, knee_text = margin, f"row {KEPT_ROWS} of the crop"
    for text, colour in (("body", BODY), ("crop", CROP), (knee_text, KNEE), ("not used", UNUSED)):
        draw.rectangle((x, 6 * scale, x + 8 * scale, 12 * scale), fill=colour)
        draw.text((x + 11 * scale, 3 * scale), text, fill="black", font=font)
        x += 11 * scale + int(draw.textlength(text, font=font)) + 12 * scale
    if scan.phantom:
        draw.text((x, 3 * scale), PHANTOM_NOTE, fill="black", font=font)
    return picture


def _draw_dashed(
    draw: ImageDraw.ImageDraw, corners: tuple[int, int, int, int], colour: Colour, dash: int, width: int
) -> None:
    """A rectangle from left, top to right, bottom, inclusive. Every other `dash` pixels are drawn, all if it is 1."""
    left, top, right, bottom = corners
    for start in range(left, right + 1, max(1, 2 * dash - 1)):
        end = min(start + dash - 1, right)
        draw.rectangle((start, top, end, top + width - 1), fill=colour)
        draw.rectangle((start, bottom - width + 1, end, bottom), fill=colour)
    for start in range(top, bottom + 1, max(1, 2 * dash - 1)):
        end = min(start + dash - 1, bottom)
        draw.rectangle((left, start, left + width - 1, end), fill=colour)
        draw.rectangle((right - width + 1, start, right, end), fill=colour)
