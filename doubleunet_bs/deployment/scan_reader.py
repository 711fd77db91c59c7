"""The first step of `predict`: scans are read and prepared, and refused where no result could be written in the end.

Loads no network: `predict --dry-run` ends here.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from doubleunet_bs.results.labelme_output import annotation_paths
from doubleunet_bs.deployment.result_files import OUTPUTS, result_folder
from doubleunet_bs.errors import RunError
from doubleunet_bs.preparation.case import VIEWS, PreparedCase, prepare_scan
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.scans.bone_scan import BoneScan
from doubleunet_bs.scans.folder import ScanFiles
from doubleunet_bs.results.source_study import SourceStudy, read_source_study
from doubleunet_bs.scans.sources import Source


@dataclasses.dataclass(frozen=True)
class JobSettings:
    """What a user asked for.

    Attributes:
        out: folder of the results.
        outputs: members of OUTPUTS.
        allow_missing_view, overwrite, keep_identity: see `commands.predict`.
        labelme: folder for further Labelme files named after the scans; None for none.
    """

    out: Path
    outputs: tuple[str, ...] = OUTPUTS
    allow_missing_view: bool = False
    overwrite: bool = False
    keep_identity: bool = False
    labelme: Path | None = None


@dataclasses.dataclass(frozen=True)
class ReadScan:
    """One scan, read and prepared.

    Attributes:
        scan, prepared: the scan, and the image for the network.
        study: the patient's identity when it is to be kept, else None.
        labelme: where its further Labelme files go, by view; None when none are wanted.
        begun: moment of reading, of `time.perf_counter`.
    """

    scan: BoneScan
    prepared: PreparedCase
    study: SourceStudy | None
    labelme: dict[str, Path] | None
    begun: float


class ScanReader:
    """Reads and prepares the scans of a run one after the other, and refuses what could not be written in the end.

    Args:
        settings: of the run.
        preparation: of the model.

    Attributes:
        cases: files of the scans read so far -> pseudonym. Scans that failed afterwards are in it as well.
    """

    def __init__(self, settings: JobSettings, preparation: PreparationSettings):
        self.settings, self.preparation = settings, preparation
        self.cases: dict[ScanFiles, str] = {}
        self._first: dict[str, str] = {}
        self._taken: dict[Path, str] = {}

    def __call__(self, files: ScanFiles) -> ReadScan:
        """Read and prepare a scan.

        Raises:
            ScanError: it cannot be read or prepared, or not be referred to.
            RunError: its results would overwrite something, or another scan of this run has the same counts.
        """
        begun = time.perf_counter()
        settings, name = self.settings, scan_name(files.sources)
        scan = files.read(settings.allow_missing_view)
        self.cases[files] = scan.case
        first = self._first.get(scan.case)
        if first is not None:
            raise RunError(f"{name}: has the same counts as {first}; one result is enough")
        result_folder(settings.out, scan.case, settings.overwrite)
        study = read_source_study(files.sources) if settings.keep_identity else None
        labelme: dict[str, Path] | None = None
        if settings.labelme is not None:
            present = [view for view in VIEWS if view not in scan.missing_views]
            labelme = annotation_paths(settings.labelme, files.sources, present)
            for path in labelme.values():
                other = self._taken.get(path)
                if other is not None:
                    raise RunError(f"{name}: its annotation would have the name of that of {other}: rename one of them")
        prepared = prepare_scan(scan, settings=self.preparation)
        # Last: a scan that gets no result does not keep another from getting it.
        self._first[scan.case] = name
        self._taken.update(dict.fromkeys((labelme or {}).values(), name))
        return ReadScan(scan, prepared, study, labelme, begun)


def scan_name(sources: Sequence[Source]) -> str:
    """How messages name a scan: its file, or its two."""
    return " + ".join(source.label for source in sources)
