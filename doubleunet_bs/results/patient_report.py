"""A report of one scan as a self-contained HTML page: no script, no network, nothing of the patient but the pseudonym."""

import base64
import dataclasses
import io
import math
from collections.abc import Mapping
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from doubleunet_bs import __version__
from doubleunet_bs.constants import KEPT_ROWS, RAW_SHAPE, VIEWS
from doubleunet_bs.display import edge_path
from doubleunet_bs.errors import RunError
from doubleunet_bs.files import read_json
from doubleunet_bs.inference.model_description import INTENDED_USE
from doubleunet_bs.results.laterality import sides
from doubleunet_bs.results.lesion_list import BODY_DEFINITION, number_lesions
from doubleunet_bs.results.result_files import FORMAT, RESULT, mask_name, picture_name


@dataclasses.dataclass(frozen=True)
class ReportScan:
    """One scan of a report.

    Attributes:
        result: the content of its `result.json`.
        masks: view -> uint8 array of the raw view, 0 and 1; a missing view is not in it.
        pictures: view -> PNG bytes of the raw view in the usual display; a missing view is not in it.
    """

    result: dict[str, Any]
    masks: dict[str, np.ndarray]
    pictures: dict[str, bytes]


def report_scan(result: dict[str, Any], masks: Mapping[str, np.ndarray], pictures: Mapping[str, bytes]) -> ReportScan:
    """Of a prediction that is being written.

    Args:
        result: see `results.describe_prediction`.
        masks: uint8 arrays of the shape of the raw view; those of missing views are passed over.
        pictures: PNG bytes of the views that are there.
    """
    present = [view for view in VIEWS if not result["views"][view]["missing"]]
    return ReportScan(result, {view: masks[view] for view in present}, {view: pictures[view] for view in present})


def read_report_scan(folder: Path) -> ReportScan:
    """Of the result folder of an earlier prediction.

    Raises:
        RunError: it is none, one of another format, incomplete or damaged.
    """
    result = read_json(folder / RESULT, RunError, "result of an earlier prediction")
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        raise RunError(f"{folder / RESULT}: not a result of this version of the package; segment that scan again")
    masks, pictures = {}, {}
    try:
        for view in VIEWS:
            if result["views"][view]["missing"]:
                continue
            path = folder / mask_name(view, ".npy")
            masks[view] = np.load(path, allow_pickle=False)
            if masks[view].shape != RAW_SHAPE or masks[view].dtype != np.uint8:
                raise RunError(f"{path}: not a mask of this package; segment that scan again")
            path = folder / picture_name(view)
            pictures[view] = path.read_bytes()
            with Image.open(io.BytesIO(pictures[view]), formats=("PNG",)) as picture:
                picture.load()
                if picture.size != RAW_SHAPE[::-1]:
                    raise ValueError("another size")
        _check(result)
        _check_lesions(result, masks)
    except FileNotFoundError:
        raise RunError(
            f"{path}: is missing; segment that scan again with the outputs masks and labelme, or all of them"
        ) from None
    except RunError:
        raise
    except (OSError, ValueError, SyntaxError, LookupError, TypeError, AttributeError) as cause:
        raise RunError(f"{folder}: a damaged result ({type(cause).__name__}); segment that scan again") from None
    return ReportScan(result, masks, pictures)


def _check(result: dict[str, Any]) -> None:
    """Look at everything the report takes from the file, so that one changed by hand fails here."""
    numbers = ("number", "row", "column", "pixels", "peak_probability", "mean_probability", "sum_counts", "max_counts")
    for lesion in result["lesions"]:
        if lesion["view"] not in VIEWS or not all(_is_number(lesion[name]) for name in numbers):
            raise ValueError("a lesion without its figures")
        if lesion["area_mm2"] is not None and not _is_number(lesion["area_mm2"]):
            raise ValueError("no area")
    if result["phantom"] not in (True, False, None):
        raise ValueError("neither a phantom nor none")
    model = result["model"]
    texts = (result["case"], result["engine"], result["version"], model["name"], model["weights_sha256"])
    if not all(isinstance(text, str) for text in (*texts, *result["warnings"])):
        raise ValueError("no text")
    area = result["lesion_area"]
    if not _is_number(area["lesion_pixels"]):
        raise ValueError("no number")
    for name in ("lesion_area_mm2", "body_pixels", "fraction_of_body"):
        if area[name] is not None and not _is_number(area[name]):
            raise ValueError("no number")
    for view in VIEWS:
        if type(result["views"][view]["window"]["top"]) is not int:
            raise ValueError("no window")


def _check_lesions(result: dict[str, Any], masks: Mapping[str, np.ndarray]) -> None:
    """The list must be that of the masks: the report draws the areas of the masks with the numbers of the list."""
    if any(lesion["view"] not in masks for lesion in result["lesions"]):
        raise ValueError("lesions of a missing view")
    for view, mask in masks.items():
        if sum(lesion["view"] == view for lesion in result["lesions"]) != number_lesions(mask)[0]:
            raise ValueError("not the lesions of its mask")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_COLUMNS = ("no.", "view", "row", "column", "pixels", "area, mm²", "peak prob.", "mean prob.", "counts", "max. count")
_SIDE_BY_SIDE = (
    "The figures of the two scans stand side by side and no more. Positioning, scan speed, time after injection and the "
    "camera change them; that the scans are of one patient has been taken from whoever gave them."
)

_PHANTOM = '<p class="use"><strong>A synthetic phantom, not a patient.</strong> It shows that the software works.</p>'


def report_page(scan: ReportScan, previous: ReportScan | None = None) -> str:
    """The page.

    Args:
        scan: the scan it is about.
        previous: an earlier scan to be shown beside it.

    Returns:
        HTML, with pictures and style inside. Contours and numbers are switched by checkboxes.
    """
    result = scan.result
    style = resources.files("doubleunet_bs.results").joinpath("patient_report.css").read_text(encoding="utf-8")
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="robots" content="noindex">',
        f"<title>{_text(result['case'])}: predicted metastatic areas</title>\n<style>\n{style}</style>\n</head>\n<body>",
        '<input type="checkbox" id="contours" checked><input type="checkbox" id="numbers" checked>',
        f"<header><h1>{_text(result['case'])}</h1>",
        "<p>Areas of a whole-body bone scan that a model predicts to be metastatic</p>",
        f'<p class="use"><strong>Not for diagnosis.</strong> {_text(INTENDED_USE)}</p>',
        _PHANTOM if result["phantom"] else "",
        "</header>",
        "<main>",
        _figures(scan, previous),
        '<p class="switches"><label for="contours">contours</label><label for="numbers">numbers</label></p>',
        '<div class="scans">',
        _views(scan, "this scan" if previous else "", "lesion"),
        _views(previous, "previous scan", "earlier") if previous else "",
        "</div>",
        _table(scan, "this scan" if previous else "", "lesion"),
        _table(previous, "previous scan", "earlier") if previous else "",
        _warnings(scan, "this scan" if previous else ""),
        _warnings(previous, "previous scan") if previous else "",
        _about(scan, previous),
        f"</main>\n<footer><p><strong>Not for diagnosis.</strong> {_text(INTENDED_USE)}</p></footer>",
        "</body>\n</html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _figures(scan: ReportScan, previous: ReportScan | None) -> str:
    """Counts and areas, of two scans beside each other when there are two."""
    scans = [scan, previous] if previous else [scan]
    rows = []
    for view in VIEWS:
        cells = [str(_count(each, view)) if view in each.masks else "view missing" for each in scans]
        rows.append((f"areas, {view} view", cells))
    rows.append(("pixels in them", [f"{each.result['lesion_area']['lesion_pixels']:,}" for each in scans]))
    areas = [each.result["lesion_area"]["lesion_area_mm2"] for each in scans]
    rows.append(("area", ["pixel spacing unknown" if area is None else f"{area:,.0f} mm²" for area in areas]))
    fractions = [each.result["lesion_area"]["fraction_of_body"] for each in scans]
    cells = ["not defined" if fraction is None else f"{100 * fraction:.2f} %" for fraction in fractions]
    rows.append(("share of the body area <sup>*</sup>", cells))
    head = "<tr><td></td><th>this scan</th><th>previous scan</th></tr>" if previous else ""
    body = "".join(f"<tr><th>{name}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>" for name, cells in rows)
    note = f'<p class="note"><sup>*</sup> Body area: {_text(BODY_DEFINITION)}.</p>'
    if previous:
        note += f'<p class="note">{_SIDE_BY_SIDE}</p>'
        if scan.result["model"]["weights_sha256"] != previous.result["model"]["weights_sha256"]:
            note += '<p class="note"><strong>The two scans were segmented by different models.</strong></p>'
    return f'<section class="figures"><table>{head}{body}</table>{note}</section>'


def _views(scan: ReportScan, title: str, prefix: str) -> str:
    name = f"<h2>{title} <small>{_text(scan.result['case'])}</small></h2>" if title else ""
    views = "".join(_view(scan, view, prefix) for view in VIEWS)
    return f'<section class="scan">{name}<div class="views">{views}</div></section>'


def _view(scan: ReportScan, view: str, prefix: str) -> str:
    if view not in scan.masks:
        return f'<figure><figcaption>{view}</figcaption><p class="missing">view missing</p></figure>'
    mask = scan.masks[view]
    rows, columns = mask.shape
    total, labels, boxes, _ = number_lesions(mask)
    numbers = [lesion["number"] for lesion in scan.result["lesions"] if lesion["view"] == view]
    paths, texts = [], []
    for index, number in zip(range(total), numbers, strict=True):
        first_row, last_row, first_column, last_column = map(int, boxes[index])
        area = labels[first_row : last_row + 1, first_column : last_column + 1] == index + 1
        place = f"translate({first_column} {first_row})"
        paths.append(f'<path id="{prefix}-{number}" transform="{place}" d="{edge_path(area)}"/>')
        right = last_column < columns - 24
        x = last_column + 4 if right else max(first_column - 3, 8 * len(str(number)))
        anchor = "" if right else ' text-anchor="end"'
        texts.append(f'<text x="{x}" y="{max(9, first_row)}"{anchor}>{number}</text>')
    last = scan.result["views"][view]["window"]["top"] + KEPT_ROWS
    limit = ""
    if 0 <= last < rows:
        limit = (
            f'<path class="limit" d="M0 {last}h{columns}"/>'
            f'<text class="hint" x="{columns - 3}" y="{last + 16}" text-anchor="end">not segmented below</text>'
        )
    left, right = sides(view, scan.result["warnings"])
    letters = f'<text class="hint" x="4" y="17">{left}</text>'
    letters += f'<text class="hint" x="{columns - 4}" y="17" text-anchor="end">{right}</text>'
    data = base64.b64encode(scan.pictures[view]).decode("ascii")
    return (
        f"<figure><figcaption>{view}: {total}</figcaption>"
        f'<svg viewBox="0 0 {columns} {rows}" role="img" aria-label="{view} view, {total} predicted areas">'
        f'<image width="{columns}" height="{rows}" href="data:image/png;base64,{data}"/>{limit}{letters}'
        f'<g class="contours">{"".join(paths)}</g><g class="numbers">{"".join(texts)}</g></svg></figure>'
    )


def _table(scan: ReportScan, title: str, prefix: str) -> str:
    head = f"<h2>Predicted areas{f', {title}' if title else ''}</h2>"
    lesions = scan.result["lesions"]
    if not lesions:
        return f"<section>{head}<p>Nothing is predicted to be metastatic.</p></section>"
    lines = []
    for lesion in lesions:
        area = lesion["area_mm2"]
        cells = (
            f'<a href="#{prefix}-{lesion["number"]}">{lesion["number"]}</a>',
            lesion["view"],
            f"{lesion['row']:.1f}",
            f"{lesion['column']:.1f}",
            f"{lesion['pixels']:,}",
            "–" if area is None else f"{area:,.0f}",
            f"{lesion['peak_probability']:.2f}",
            f"{lesion['mean_probability']:.2f}",
            f"{lesion['sum_counts']:,}",
            f"{lesion['max_counts']:,}",
        )
        lines.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    names = "".join(f"<th>{name}</th>" for name in _COLUMNS)
    note = (
        "Rows and columns are those of the centroid in the raw view, from 0. An area seen in both views is listed twice. "
        "Probabilities are the model's own and not calibrated."
    )
    return (
        f'<section>{head}<div class="wide"><table class="lesions"><thead><tr>{names}</tr></thead>'
        f'<tbody>{"".join(lines)}</tbody></table></div><p class="note">{note}</p></section>'
    )


def _warnings(scan: ReportScan, title: str) -> str:
    if not scan.result["warnings"]:
        return ""
    lines = "".join(f"<li>{_text(line)}</li>" for line in scan.result["warnings"])
    return f"<section><h2>Warnings{f', {title}' if title else ''}</h2><ul>{lines}</ul></section>"


def _about(scan: ReportScan, previous: ReportScan | None) -> str:
    lines = []
    for title, each in (("this scan", scan), ("previous scan", previous)):
        if each:
            model = each.result["model"]
            lines.append(
                f"<tr><th>{title if previous else 'model'}</th><td>{_text(model['name'])}, weights "
                f"{_text(model['weights_sha256'][:12])}, engine {_text(each.result['engine'])}, "
                f"doubleunet_bs {_text(each.result['version'])}</td></tr>"
            )
    lines.append(f"<tr><th>report</th><td>doubleunet_bs {__version__}</td></tr>")
    return f'<section class="about"><h2>Made by</h2><table>{"".join(lines)}</table></section>'


def _count(scan: ReportScan, view: str) -> int:
    return int(np.sum([lesion["view"] == view for lesion in scan.result["lesions"]], dtype=int))


def _text(value: object) -> str:
    return escape(str(value))
