"""Small pieces of HTML: escaped text, tables, embedded pictures."""

import base64
import html
from collections.abc import Sequence

import cv2
import numpy as np

from doubleunet_bs import constants

TRUTH, PREDICTION, MISSED, WRONG = (
    "#{:02x}{:02x}{:02x}".format(*colour)
    for colour in (constants.TRUTH, constants.TRUE_POSITIVE, constants.FALSE_NEGATIVE, constants.FALSE_POSITIVE)
)
LAYERS = (
    ("truth", "true lesions", TRUTH, True),
    ("prediction", "predicted lesions", PREDICTION, True),
    ("probability", "probability map", "#e69f00", False),
)
"""(class and name of the box, label, colour, whether it is on at the start)."""

_SWITCHES = "\n".join(f"#show-{name}:not(:checked) ~ .scans .{name} {{ display: none; }}" for name, _, _, _ in LAYERS)

STYLE = f"""
:root {{ color-scheme: light; --ink: #1c2326; --soft: #5b666b; --line: #d9dfe1; --paper: #ffffff; --tint: #f3f6f7; }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }}
main {{ max-width: 66rem; margin: 0 auto; padding: 1.2rem 1rem 3rem; }}
h1 {{ font-size: 1.6rem; line-height: 1.25; margin: 0.2rem 0 0.4rem; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.2rem; margin: 2.4rem 0 0.6rem; padding-bottom: 0.2rem; border-bottom: 1px solid var(--line); }}
h3 {{ font-size: 1rem; margin: 1.2rem 0 0.4rem; overflow-wrap: anywhere; }}
p {{ max-width: 46rem; }}
.small, figcaption, .notes {{ color: var(--soft); font-size: 0.875rem; }}
.notes {{ padding-left: 1.1rem; max-width: 52rem; }}
.banner {{ background: #fff4d6; border-left: 4px solid #e0a100; padding: 0.6rem 0.9rem; max-width: 52rem; }}
.headline {{ display: flex; flex-wrap: wrap; gap: 0.6rem; margin: 1rem 0; }}
.headline div {{ background: var(--tint); border-radius: 8px; padding: 0.6rem 1rem; flex: 1 1 13rem; }}
.headline b {{ display: block; font-size: 1.5rem; line-height: 1.2; white-space: nowrap;
  font-variant-numeric: tabular-nums; }}
/* A table that is cut off has a shadow at that edge; covers that move with the table hide it where nothing is cut. */
.wide {{ overflow-x: auto; margin: 0.6rem 0; background:
  linear-gradient(to right, var(--paper) 40%, transparent) 0 0 / 2rem 100% no-repeat local,
  linear-gradient(to left, var(--paper) 40%, transparent) 100% 0 / 2rem 100% no-repeat local,
  linear-gradient(to right, #0003, transparent) 0 0 / 0.8rem 100% no-repeat scroll,
  linear-gradient(to left, #0003, transparent) 100% 0 / 0.8rem 100% no-repeat scroll; }}
table {{ border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 0.28rem 0.7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }}
th {{ color: var(--soft); font-weight: 600; vertical-align: bottom; }}
th:first-child, td:first-child {{ text-align: left; padding-left: 0; }}
tr.strong td {{ font-weight: 600; border-top: 2px solid var(--line); }}
.grid {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); gap: 1rem 1.5rem; }}
.scans.grid {{ grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)); }}
figure {{ margin: 0; }}
figure svg, .chart svg {{ width: 100%; height: auto; display: block; }}
.layers text {{ fill: #4d575b; }}
.pixels {{ image-rendering: pixelated; }}
.truth, .prediction {{ fill: none; stroke-width: 1.5; vector-effect: non-scaling-stroke; stroke-linejoin: round; }}
path.truth {{ stroke: {TRUTH}; stroke-width: 2.6; }}
path.prediction {{ stroke: {PREDICTION}; stroke-dasharray: 4 2; }}
.switch + label {{ display: inline-block; margin: 0 1.1rem 0.6rem 0.3rem; cursor: pointer; }}
.switch {{ width: 1.1rem; height: 1.1rem; vertical-align: -0.15rem; }}
.switch + label + br {{ display: none; }}
@media (max-width: 40rem) {{ .switch + label + br {{ display: inline; }}
  table {{ font-size: 0.8rem; }} th, td {{ padding: 0.28rem 0.25rem; white-space: normal; }}
  /* Names of columns upright: the columns need no more room than their figures. */
  th:not(:first-child) {{ writing-mode: vertical-rl; transform: rotate(180deg); text-align: left; max-height: 7rem; }}
  .headline div {{ flex-basis: 8rem; }} }}
.swatch {{ display: inline-block; width: 0.9em; height: 0.9em; border-radius: 2px; margin-right: 0.35em;
  vertical-align: -0.08em; }}
details {{ margin: 0.8rem 0; }}
summary {{ cursor: pointer; }}
{_SWITCHES}
@media print {{ .switch, .switch + label {{ display: none; }} h2 {{ break-after: avoid; }}
  figure {{ break-inside: avoid; }} }}
"""


Cell = str | int | float | None


def text(value: object) -> str:
    """Escaped for any place in the page, attributes included."""
    return html.escape(str(value), quote=True)


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction in per cent, an en dash where it is undefined."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def with_unit(value: float | None) -> str:
    """A fraction as "12.3 %", "undefined" where it is."""
    return "undefined" if value is None else f"{percent(value)} %"


def table(head: Sequence[str], rows: Sequence[Sequence[Cell]], strong: Sequence[int] = ()) -> str:
    """A table that scrolls by itself where the screen is narrow.

    Args:
        head: of the columns.
        rows: of cells; None is an en dash.
        strong: numbers of rows to stress.
    """
    lines = [f"<th>{text(name)}</th>" for name in head]
    body = []
    for number, row in enumerate(rows):
        cells = "".join(f"<td>{'–' if cell is None else text(cell)}</td>" for cell in row)
        body.append(f"<tr class='strong'>{cells}</tr>" if number in strong else f"<tr>{cells}</tr>")
    return (
        f'<div class="wide"><table><thead><tr>{"".join(lines)}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    )


def notes(lines: Sequence[str]) -> str:
    """A list of small print; nothing when there is none."""
    return f'<ul class="notes">{"".join(f"<li>{text(line)}</li>" for line in lines)}</ul>' if lines else ""


def png_uri(image: np.ndarray) -> str:
    """A picture as a data URI.

    Args:
        image: (rows, columns) uint8 grey, or (rows, columns, 4) uint8 red, green, blue, alpha.
    """
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA)
    _, content = cv2.imencode(
        ".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 6, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT]
    )
    return "data:image/png;base64," + base64.b64encode(content.tobytes()).decode()


def tinted(strength: np.ndarray, colour: tuple[int, int, int], least: float = 0.05) -> np.ndarray:
    """One colour, the more opaque the stronger.

    Args:
        strength: (rows, columns), 0 to 1; below `least` nothing is drawn, which keeps the file small.
        colour: red, green, blue.

    Returns:
        (rows, columns, 4) uint8.
    """
    alpha = np.where(strength < least, 0, np.rint(np.clip(strength, 0, 1) * 15) * 17).astype(np.uint8)
    picture = np.zeros((*strength.shape, 4), np.uint8)
    picture[alpha > 0, :3] = colour
    picture[..., 3] = alpha
    return picture
