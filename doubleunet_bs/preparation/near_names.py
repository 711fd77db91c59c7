"""Which scan a name was meant for that fits none exactly: a misspelt annotation, a line of patients.csv."""

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable

from doubleunet_bs.constants import VIEWS

LEAST_LIKENESS = 0.8


class NearNames:
    """The names of all scans, searched by what comes near. Names with other numbers are other scans: wb17 and wb18.

    Example:
        >>> near = NearNames(["patient11_ant", "patient11_post", "wb17"])
        >>> near.find("patient11"), near.find("WB-017"), near.find("wb17_postrior"), near.find("wb18")
        ('patient11_ant', 'wb17', 'wb17', None)
    """

    def __init__(self, names: Iterable[str]):
        self._names = {name.casefold(): name for name in sorted(names)}
        self._alike: defaultdict[tuple[int, ...], list[str]] = defaultdict(list)
        for name in self._names:
            self._alike[_numbers(name)].append(name)

    def begins(self, text: str) -> str | None:
        """The longest name that `text` begins with, as a whole word, if any."""
        text = text.casefold()
        for end in range(len(text), 0, -1):
            if text[:end] in self._names and not text[end : end + 1].isalnum():
                return self._names[text[:end]]
        return None

    def find(self, text: str) -> str | None:
        """The name that `text` begins with, or that begins with `text`, or the most similar one, if any."""
        if (first := self.begins(text)) is not None:
            return first
        text = text.casefold()
        alike = self._alike.get(_numbers(text), [])
        for name in alike:
            if name.startswith(text) and not name[len(text)].isalnum():
                return self._names[name]
        stems = {stem: name for name in alike for stem in (name, *(f"{name}_{view}" for view in VIEWS))}
        close = difflib.get_close_matches(text, stems, 1, LEAST_LIKENESS)
        return self._names[stems[close[0]]] if close else None


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(int(digits[:18]) for digits in re.findall(r"\d+", name))
