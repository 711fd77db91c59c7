"""Shard folders: prepared cases as plain NumPy files beside one `dataset.json`.

    dataset.json        format, settings, shape, mark of the pseudonyms' key, one entry per shard and one per case
    counts-00000.npy    uint16 (n, 640, 512): cropped and merged counts, before brightness
    labels-00000.npy    uint8  (n, 640, 512): 0 air, 1 non-metastatic, 2 metastatic, 3 benign where it is a class
    regions-00000.npy   uint8  (n, 640, 512): 0 not bone, 1 to 12 regions; only where some are annotated

Counts and a gain instead of grey levels: the shard stays exact, and a change of brightness is a change of the gain. The
files are mapped into memory and opened without pickle.
"""

import dataclasses
import hashlib
import json
import os
import tokenize
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from doubleunet_bs.errors import DatasetError, os_reason
from doubleunet_bs.files import write_json
from doubleunet_bs.preparation.brightness import to_grey
from doubleunet_bs.preparation.records import CaseRecord, DataSource, parse_record, parse_sources
from doubleunet_bs.preparation.settings import PreparationSettings

DATASET = "dataset.json"
FORMAT = "doubleunet-bs shards"
VERSION = 1
CASES_PER_SHARD = 64
# About 1 KB a case.
LARGEST_DESCRIPTION = 64 << 20
KINDS: dict[str, np.dtype] = {"counts": np.dtype("<u2"), "labels": np.dtype("u1")}
REGIONS_KIND = "regions"
"""Of type uint8. A shard without an annotated skeleton has no such file."""
# What NumPy's header parser raises on damaged headers: it hands them to Python's own parsers.
_HEADER_ERRORS = (ValueError, SyntaxError, tokenize.TokenError, EOFError, TypeError, RecursionError, MemoryError,
                  OverflowError)  # fmt: skip
_ARCHIVE_ERRORS = (OSError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


def shard_name(kind: str, number: int) -> str:
    """File name of a shard: `shard_name("counts", 0)` is "counts-00000.npy"."""
    return f"{kind}-{number:05d}.npy"


class Dataset(Protocol):
    """The images that a network trains on: a `ShardedDataset`, or one with other labels for some cases."""

    @property
    def cases(self) -> tuple[CaseRecord, ...]: ...
    @property
    def settings(self) -> PreparationSettings: ...
    @property
    def image_shape(self) -> tuple[int, int]: ...
    @property
    def fingerprint(self) -> str: ...

    def counts(self, index: int) -> np.ndarray: ...
    def labels(self, index: int) -> np.ndarray: ...
    def grey(self, index: int) -> np.ndarray: ...


class ShardedDataset:
    """An opened shard folder. Made by `open_shards`.

    Attributes:
        path: the folder.
        cases: one `CaseRecord` for each case, in the order of the shards.
        settings: what all of them were prepared with.
        image_shape: (rows, columns) of every image: (640, 512) at binning 1.
        fingerprint: SHA-256 of `dataset.json`, which in turn holds that of every shard file.
        key_mark: of the key that made the pseudonyms (`scans.pseudonyms`); None where it is not known. One person has
            the same pseudonym in two data sets only when their keys are the same.
        shards: kind of a file -> the mapped arrays of all shards.
        sources: the public data sets that it was made from.
    """

    def __init__(
        self,
        path: Path,
        cases: Sequence[CaseRecord],
        settings: PreparationSettings,
        fingerprint: str,
        shards: Mapping[str, Sequence[np.ndarray]],
        key_mark: str | None = None,
        sources: Sequence[DataSource] = (),
    ):
        self.path = path
        self.sources = tuple(sources)
        self.cases = tuple(cases)
        self.settings = settings
        self.image_shape = settings.image_shape
        self.fingerprint = fingerprint
        self.key_mark = key_mark
        self.shards = shards

    def __len__(self) -> int:
        return len(self.cases)

    def counts(self, index: int) -> np.ndarray:
        """uint16 array of `image_shape`, a read-only view of the mapped file."""
        return self.shards["counts"][self.cases[index].shard][self.cases[index].row]

    def labels(self, index: int) -> np.ndarray:
        """uint8 array of `image_shape` of classes, a read-only view of the mapped file."""
        return self.shards["labels"][self.cases[index].shard][self.cases[index].row]

    def regions(self, index: int) -> np.ndarray:
        """uint8 array of `image_shape`: 0 not bone, 1 to 12; `DatasetError` where they are not annotated."""
        record = self.cases[index]
        if not record.has_regions:
            raise DatasetError(f"{self.path}: {record.case} has no annotated skeleton: run prepare with --regions")
        return self.shards[REGIONS_KIND][record.shard][record.row]

    def grey(self, index: int) -> np.ndarray:
        """uint8 array of `image_shape`: the prepared image (`preparation.brightness.to_grey`)."""
        return to_grey(self.counts(index), self.cases[index].gains)


def open_shards(path: str | os.PathLike, verify: bool = False) -> ShardedDataset:
    """Open a shard folder and check that it is whole.

    Args:
        path: the folder.
        verify: also read every shard file and compare its SHA-256, not only its header and size.

    Raises:
        DatasetError: no such folder, another format version, damaged or missing files, impossible entries, a case
            twice.

    Example:
        >>> import tempfile
        >>> from doubleunet_bs.phantom import make_phantom
        >>> from doubleunet_bs.preparation import prepare_scan
        >>> from doubleunet_bs.preparation.records import make_record
        >>> from doubleunet_bs.scans import BoneScan
        >>> phantom = make_phantom(seed=1)
        >>> case = prepare_scan(BoneScan(phantom.anterior, phantom.posterior, pixel_spacing_mm=None, case="case-1"))
        >>> folder = tempfile.TemporaryDirectory()
        >>> writer = ShardWriter(Path(folder.name), case.settings)
        >>> writer.add(make_record(case, "patient-1", "negative", "breast", "0" * 64), case.counts, case.labels)
        >>> writer.finish()
        >>> dataset = open_shards(folder.name)
        >>> len(dataset), dataset.cases[0].group, dataset.grey(0).shape
        (1, 'negative', (640, 512))
    """
    path = Path(path)
    if not (path / DATASET).is_file():
        raise DatasetError(f"{path}: not a shard folder ({DATASET} is missing): make one with `doubleunet-bs prepare`")
    fingerprint, content = _read(path / DATASET)
    settings, shards = _check_head(path / DATASET, content)
    try:
        sources = parse_sources(content.get("sources"))
        cases = [parse_record(record) for record in content["cases"]]
    except DatasetError as error:
        raise DatasetError(f"{path / DATASET}: {error}") from None
    places = [(number, row) for number, shard in enumerate(shards) for row in range(shard["cases"])]
    if [(case.shard, case.row) for case in cases] != places:
        raise DatasetError(f"{path / DATASET}: the cases do not fill the shards in order: prepare the scans again")
    name, times = Counter(case.case for case in cases).most_common(1)[0]
    if times > 1:
        raise DatasetError(f"{path / DATASET}: {name} is in it {times} times: prepare the scans again")
    arrays: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    arrays[REGIONS_KIND] = []
    for number, shard in enumerate(shards):
        for kind, dtype in _kinds(shard).items():
            file = path / shard_name(kind, number)
            arrays[kind].append(_map(file, (shard["cases"], *settings.image_shape), dtype))
            if verify and file_sha256(file) != shard[f"{kind}_sha256"]:
                raise DatasetError(f"{file}: its content has changed since it was written: prepare the scans again")
        if REGIONS_KIND not in _kinds(shard):
            if any(case.has_regions for case in cases if case.shard == number):
                raise DatasetError(f"{path / DATASET}: regions of shard {number} are missing: prepare the scans again")
            arrays[REGIONS_KIND].append(np.empty(0, np.uint8))
    return ShardedDataset(path, cases, settings, fingerprint, arrays, content.get("key_mark"), sources)


def _kinds(shard: Mapping[str, Any]) -> dict[str, np.dtype]:
    """Kind -> type of the files of one shard."""
    return KINDS | ({REGIONS_KIND: np.dtype("u1")} if f"{REGIONS_KIND}_sha256" in shard else {})


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_arrays(path: Path, promised: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> dict[str, np.ndarray]:
    """Arrays of an .npz file by name, when each has the promised shape and type.

    Raises ValueError: the file is missing, damaged, or holds anything else.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in promised}
    except (*_HEADER_ERRORS, *_ARCHIVE_ERRORS) as cause:
        raise ValueError(f"{type(cause).__name__}: {cause}") from None
    for name, (shape, dtype) in promised.items():
        array = arrays[name]  # Bytes, if the member is no array.
        if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != dtype:
            raise ValueError(f"{name} is not an array of shape {shape} and type {dtype}")
    return arrays


def patients_comparable(one: ShardedDataset, other: ShardedDataset) -> bool | None:
    """Whether a patient of two data sets has the same pseudonym in both: their keys are the same.

    None: one of them does not know its key. A patient in both is then found only if the keys are the same.
    """
    if one.key_mark is None or other.key_mark is None:
        return None
    return one.key_mark == other.key_mark


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    """SHA-256 of the file, and what is in it."""
    try:
        if path.stat().st_size > LARGEST_DESCRIPTION:
            raise DatasetError(f"{path}: larger than {LARGEST_DESCRIPTION >> 20} MB, which no shard description is")
        text = path.read_bytes()
        content = json.loads(text.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as cause:
        raise DatasetError(f"{path}: not a readable shard description ({cause})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DatasetError(f"{path}: not a shard description of this package")
    if content.get("version") != VERSION:
        raise DatasetError(f"{path}: not of format version {VERSION}: prepare the scans again")
    return hashlib.sha256(text).hexdigest(), content


def _check_head(path: Path, content: dict[str, Any]) -> tuple[PreparationSettings, list[dict[str, Any]]]:
    try:
        settings = PreparationSettings.from_json(content.get("settings"))
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}: prepare the scans again") from None
    if content.get("image_shape") != list(settings.image_shape):
        raise DatasetError(f"{path}: image_shape is not {list(settings.image_shape)}, as its settings demand")
    if not isinstance(content.get("key_mark"), str | None):
        raise DatasetError(f"{path}: `key_mark` is damaged: prepare the scans again")
    shards, cases = content.get("shards"), content.get("cases")
    names = {"cases", *(f"{kind}_sha256" for kind in KINDS)}
    if not (
        isinstance(shards, list)
        and isinstance(cases, list)
        and all(isinstance(shard, dict) and set(shard) - {f"{REGIONS_KIND}_sha256"} == names for shard in shards)
        and all(type(shard["cases"]) is int and 0 < shard["cases"] <= len(cases) for shard in shards)
    ):
        raise DatasetError(f"{path}: `shards` and `cases` are missing or damaged: prepare the scans again")
    if not cases:
        raise DatasetError(f"{path}: no case is in it")
    return settings, shards


def _map(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The array of a .npy file, read-only, when it is exactly the one that `dataset.json` describes."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
        if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
            raise ValueError(f"shape {array.shape} of type {array.dtype} instead of {shape} of type {dtype}")
        if path.stat().st_size != array.offset + array.nbytes:
            raise ValueError(f"{path.stat().st_size} bytes")
    except FileNotFoundError:
        raise DatasetError(f"{path}: missing: prepare the scans again") from None
    except OSError as cause:
        raise DatasetError(f"{path}: cannot be read ({os_reason(cause)})") from None
    except _HEADER_ERRORS as cause:
        reason = str(cause).splitlines()[0][:100] if str(cause) else type(cause).__name__
        raise DatasetError(f"{path}: not as {DATASET} describes it ({reason}): prepare the scans again") from None
    return array


class ShardWriter:
    """Fills a folder with shards; `finish` makes it a data set by writing `dataset.json` last.

    Args:
        folder: an existing folder that is not yet a data set, such as the one of `files.new_folder`.
        settings: of the preparation.
        key_mark: `Pseudonyms.key_mark` of the key that made the pseudonyms; None where no key did.

    Attributes:
        cases: the records of all cases so far. Until `finish`, all but their places may be changed.
        sources: the public data sets that the scans are from. They may be given until `finish`.
    """

    def __init__(self, folder: Path, settings: PreparationSettings, key_mark: str | None = None):
        self.folder = folder
        self.sources: tuple[DataSource, ...] = ()
        self.settings = settings
        self.key_mark = key_mark
        self.cases: list[CaseRecord] = []
        self._shards: list[dict[str, Any]] = []
        self._rows = 0
        self._arrays = {
            kind: np.zeros((CASES_PER_SHARD, *settings.image_shape), dtype) for kind, dtype in KINDS.items()
        }

    def add(
        self, record: CaseRecord, counts: np.ndarray, labels: np.ndarray, regions: np.ndarray | None = None
    ) -> None:
        """Append a case: uint16 counts, uint8 labels and regions of the settings' image shape, or None without regions.

        Shard and row are filled in, and whether the record has regions.
        """
        if self._rows == CASES_PER_SHARD:
            self._write()
        self._arrays["counts"][self._rows] = counts
        self._arrays["labels"][self._rows] = labels
        if regions is not None:
            if REGIONS_KIND not in self._arrays:
                self._arrays[REGIONS_KIND] = np.zeros((CASES_PER_SHARD, *self.settings.image_shape), np.uint8)
            self._arrays[REGIONS_KIND][self._rows] = regions
        drawn = regions is not None
        self.cases.append(dataclasses.replace(record, shard=len(self._shards), row=self._rows, has_regions=drawn))
        self._rows += 1

    def finish(self) -> None:
        """Write the last shard and `dataset.json`."""
        if self._rows:
            self._write()
        content = {
            "format": FORMAT,
            "version": VERSION,
            "settings": self.settings.to_json(),
            "image_shape": list(self.settings.image_shape),
            "key_mark": self.key_mark,
            "sources": [source.to_json() for source in self.sources],
            "shards": self._shards,
            "cases": [case.to_json() for case in self.cases],
        }
        write_json(self.folder / DATASET, content)

    def _write(self) -> None:
        entry: dict[str, Any] = {"cases": self._rows}
        for kind, array in self._arrays.items():
            path = self.folder / shard_name(kind, len(self._shards))
            with open(path, "wb") as file:
                np.lib.format.write_array(file, array[: self._rows], version=(1, 0), allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            entry[f"{kind}_sha256"] = file_sha256(path)
        self._shards.append(entry)
        self._rows = 0
        self._arrays.pop(REGIONS_KIND, None)
