"""Everything that is wrong with a folder, in one table and one file."""

import dataclasses
import os
from collections.abc import Sequence

from doubleunet_bs.files import write_json

MOST_LINES = 50


@dataclasses.dataclass(frozen=True)
class Problem:
    """Why a file does not go in.

    Attributes:
        path: as the user knows it, below the folder he named.
        reason: slug, for instance "not-dicom".
        message: one line for a technician.
    """

    path: str
    reason: str
    message: str


def problem_table(problems: Sequence[Problem]) -> str:
    """A table of at most 50 problems for a terminal, and a line that says how many more there are."""
    lines = [f"{'FILE':<32}  {'REASON':<20}  WHAT TO KNOW"]
    for problem in problems[:MOST_LINES]:
        path = problem.path if len(problem.path) <= 32 else "..." + problem.path[-29:]
        lines.append(f"{path:<32}  {problem.reason:<20}  {problem.message}")
    if len(problems) > MOST_LINES:
        lines.append(f"... and {len(problems) - MOST_LINES} more")
    # File names need not be UTF-8; a terminal must survive them.
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode("utf-8")


def write_problems(path: str | os.PathLike, problems: Sequence[Problem]) -> None:
    """Write all problems as a JSON list of objects with `path`, `reason` and `message`, readable by its owner only."""
    clean = [
        {
            name: text.encode("utf-8", "backslashreplace").decode("utf-8")
            for name, text in dataclasses.asdict(problem).items()
        }
        for problem in problems
    ]
    # File names of a hospital's export often are the patients' names.
    write_json(path, clean, mode=0o600)
