"""Small pieces of HTML: escaped text, tables, embedded pictures."""

import base64
import html
from collections.abc import Sequence

import cv2
import numpy as np

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
