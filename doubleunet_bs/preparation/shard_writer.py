"""Cases -> shard files, in a stream: never more than one shard is in memory."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

from doubleunet_bs.files import replace_file, write_json
from doubleunet_bs.preparation.records import CaseRecord
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.preparation.shards import DATASET, KINDS, describe, file_sha256, shard_name

CASES_PER_SHARD = 64


class ShardWriter:
    """Fills a folder with shards; `finish` makes it a data set by writing `dataset.json` last.

    Args:
        folder: an existing folder that nobody takes for a data set, for instance that of `files.new_folder`.
        settings: of the preparation.
        shards, cases: what is in the folder already, when an interrupted preparation goes on.
        key_mark: `Pseudonyms.key_mark` of the key that made the pseudonyms; None where no key did.

    Attributes:
        shards: one entry of `dataset.json` per finished shard. cases: the records of all cases in finished shards.
    """

    def __init__(
        self,
        folder: Path,
        settings: PreparationSettings,
        shards: list[dict[str, Any]] | None = None,
        cases: list[CaseRecord] | None = None,
        key_mark: str | None = None,
    ):
        self.folder = folder
        self.settings = settings
        self.shards = shards or []
        self.cases = cases or []
        self.key_mark = key_mark
        self._waiting: list[CaseRecord] = []
        self._arrays = {
            kind: np.zeros((CASES_PER_SHARD, *settings.image_shape), dtype) for kind, dtype in KINDS.items()
        }

    def add(self, record: CaseRecord, counts: np.ndarray, labels: np.ndarray) -> bool:
        """Append a case. Returns True when this filled a shard and wrote it."""
        row = len(self._waiting)
        self._arrays["counts"][row] = counts
        self._arrays["labels"][row] = labels
        self._waiting.append(dataclasses.replace(record, shard=len(self.shards), row=row))
        if len(self._waiting) == CASES_PER_SHARD:
            self._write()
            return True
        return False

    def flush(self) -> None:
        """Write the shard that is being filled, if any: it is the last one."""
        if self._waiting:
            self._write()

    def finish(self) -> None:
        """Write the last shard and `dataset.json`."""
        self.flush()
        write_json(self.folder / DATASET, describe(self.settings, self.shards, self.cases, self.key_mark))

    def _write(self) -> None:
        entry: dict[str, Any] = {"cases": len(self._waiting)}
        for kind, array in self._arrays.items():
            path = self.folder / shard_name(kind, len(self.shards))
            replace_file(path, lambda temporary, array=array: _save(temporary, array[: len(self._waiting)]))
            entry[f"{kind}_sha256"] = file_sha256(path)
        self.shards.append(entry)
        self.cases.extend(self._waiting)
        self._waiting = []


def _save(path: Path, array: np.ndarray) -> None:
    with open(path, "wb") as file:
        np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
