"""What results say of a public data set: its licence, its citation, and what its labels are worth."""

import dataclasses
from typing import Any

from doubleunet_bs.errors import DatasetError

LONGEST_TEXT = 2000


@dataclasses.dataclass(frozen=True)
class DataSource:
    """A public data set, as shards, runs, model cards and reports name it.

    Attributes:
        name: as `prepare --dataset` takes it.
        licence, citation: in words.
        remarks: what belongs beside every score, one sentence each: weak labels for instance.
        whole: whether every scan of the data set went in but those known to be damaged.
    """

    name: str
    licence: str
    citation: str
    remarks: tuple[str, ...] = ()
    whole: bool = False

    @property
    def text(self) -> str:
        """One paragraph for model cards and reports."""
        part = "" if self.whole else ", not all of it"
        return " ".join([f"Data: {self.name}{part}, {self.citation}. Licence: {self.licence}.", *self.remarks])

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return dataclasses.asdict(self) | {"remarks": list(self.remarks)}


def parse_sources(content: Any) -> tuple[DataSource, ...]:
    """The inverse of a list of `DataSource.to_json`; a file from before there were sources has none.

    Raises:
        DatasetError: it is damaged.
    """
    try:
        sources = tuple(DataSource(**{**entry, "remarks": tuple(entry["remarks"])}) for entry in content or ())
    except (TypeError, KeyError):
        raise DatasetError("`sources` is damaged") from None
    texts = [text for one in sources for text in (one.name, one.licence, one.citation, *one.remarks)]
    if not all(isinstance(text, str) and len(text) <= LONGEST_TEXT and text.isprintable() for text in texts):
        raise DatasetError("`sources` is damaged")
    if not all(type(one.whole) is bool for one in sources):
        raise DatasetError("`sources` is damaged")
    return sources
