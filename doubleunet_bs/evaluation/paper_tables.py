"""What others printed, as data: the paper's Tables 1 to 3, in %, and scores on public data sets.

Source of the tables: Chen et al. 2023, Breast Cancer Bone Metastasis Lesion Segmentation on Bone Scintigraphy, section
3 (doi:10.20944/preprints202307.0674.v1, CC BY). All are pixel-wise figures of the metastatic class from a ten-fold
cross-validation over the scans of 90 breast-cancer patients with bone metastases, which are not public.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from doubleunet_bs.preparation.records import (
    MIXED,
    PATIENTS,
    PHANTOMS,
    UNKNOWN_GROUP,
    CaseRecord,
    DataSource,
    scans_are,
)
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.runs.experiments import Experiment

SOURCE = "Chen et al. 2023, doi:10.20944/preprints202307.0674.v1"
CANCER = "breast"
"""Of the patients whose scans were scored; those with prostate cancer served for pre-training only."""

EARLIER_RUN = "earlier run"
"""Where weights come from whose patients nobody could compare with those of a run."""

PHYSICIANS_DICE = 0.704
"""The best agreement between physicians of the paper's hospital, as Dice coefficient, in a study of object detection
(PHYSICIANS_SOURCE). How far it bounds an F1 of outlined pixels is not known."""
PHYSICIANS_SOURCE = "Liao et al. 2023, doi:10.3390/diagnostics13040685"


@dataclasses.dataclass(frozen=True)
class PaperRow:
    """A row "Mean" of a table: means over folds in %, the F1 their harmonic mean, as the paper prints it."""

    table: int
    precision: float
    sensitivity: float
    f1: float


PAPER_ROWS: dict[str, PaperRow] = {
    "baseline": PaperRow(1, 61.56, 62.99, 62.27),
    "dice": PaperRow(2, 67.63, 63.29, 65.39),
    "dice-otsu": PaperRow(2, 70.24, 61.80, 65.75),
    "dice-otsu-transfer": PaperRow(2, 69.68, 63.00, 66.17),
    "dice-mining": PaperRow(2, 70.18, 61.42, 65.51),
    "dice-mining-transfer": PaperRow(2, 66.25, 64.24, 65.23),
    "focal-tversky": PaperRow(2, 67.87, 65.04, 66.43),
    "focal-tversky-otsu": PaperRow(2, 69.96, 63.55, 66.60),
    "focal-tversky-otsu-transfer": PaperRow(2, 63.08, 70.82, 66.72),
    "focal-tversky-mining": PaperRow(2, 68.66, 62.67, 65.53),
    "focal-tversky-mining-transfer": PaperRow(2, 61.49, 69.28, 65.15),
    "focal-tversky-otsu-transfer-augmented": PaperRow(3, 65.32, 67.24, 66.26),
}
"""By the name of the experiment."""


@dataclasses.dataclass(frozen=True)
class PublishedScores:
    """Scores on the test part of a public data set.

    Attributes:
        source: of the figures. scans: in the test part.
        figures: name of a `ComparableFigure` -> what was published.
        note: which methods these are, and what was not stated.
    """

    source: str
    scans: int
    figures: Mapping[str, str]
    note: str


_BENIGN_DICE = "52 to 55 %"
_DICE = "41.2 to 47.7 %, SegFormer 37 to 40 %"
PUBLISHED_SCORES: dict[tuple[str, ...], PublishedScores] = {
    ("bs80k", "bs80k-masks"): PublishedScores(
        "masks for BS-80K, doi:10.5281/zenodo.23190333",
        293,
        {
            "Dice, both views: pooled": _DICE,
            "Dice, both views: mean over images": _DICE,
            "Lesion sensitivity at 1 false positive per scan": "54 to 69 % at 0.64 to 1.75",
            "AUC of images, both views": "0.81 to 0.84",
            "Benign Dice, both views: pooled": _BENIGN_DICE,
            "Benign Dice, both views: mean over images": _BENIGN_DICE,
        },
        "Dice: nnU-Net 41.2 %, trained with the skeleton, too, 43.6 %, with attention 47.7 %. Whether pooled or a mean "
        "over images is not stated. This run's figures are of the prepared image, which is cropped.",
    )
}
"""By the names of the data sets that the shards are made from."""


_NOTES = {
    PHANTOMS: "Phantom scans: a software check, not comparable with any figure of patients.",
    MIXED: "Some of the scans are phantoms: the figures say nothing about patients.",
    PATIENTS: "Scans of patients.",
}


@dataclasses.dataclass(frozen=True)
class Provenance:
    """What the scans of a run are, and what their figures can be compared with.

    Attributes:
        scans: "phantoms", "patients" or "mixed".
        changed_preparation: what differs from the paper's preparation.
        row: the paper's row, for an experiment of the paper with nothing changed; else None.
        other_cancers: recorded cancers that are not the paper's.
        trained_elsewhere: "training" or "pre-training" when its scans have pseudonyms of another key than these, or
            EARLIER_RUN: shared patients could not be found. Else None.
        sources: a paragraph for each public data set.
        published: scores of others on the test part of this data set; None for other data or split, or a part of it.
        test_scans: how many scans of that test part `prepare` has kept.
    """

    scans: str
    changed_preparation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    row: PaperRow | None = None
    other_cancers: tuple[str, ...] = ()
    trained_elsewhere: str | None = None
    sources: tuple[str, ...] = ()
    published: PublishedScores | None = None
    test_scans: int = 0

    @property
    def paper(self) -> PaperRow | None:
        """The paper's row to be shown: `row` where every scan is of a patient and none of another cancer, else None."""
        return self.row if self.scans == PATIENTS and not self.other_cancers else None

    @property
    def notes(self) -> list[str]:
        """Sentences that belong under every table of these figures."""
        notes = [_NOTES[self.scans], *self.sources]
        if self.changed_preparation:
            changed = ", ".join(f"{name} {value}" for name, value in self.changed_preparation.items())
            notes.append(f"The preparation is not the paper's ({changed}).")
        if self.paper:
            notes.append(
                f"The paper's row (Table {self.paper.table}, {SOURCE}) is from other scans, which are not public: "
                "the data differ, and the figures may differ for that reason alone."
            )
        elif self.row and self.scans == PATIENTS:
            notes.append(
                f"The paper's row is left out: scans are recorded as of {' and '.join(self.other_cancers)} cancer, the "
                f"paper's are of {CANCER} cancer."
            )
        elif self.row:
            notes.append("The paper's row is left out: these are not scans of patients alone.")
        if self.trained_elsewhere == EARLIER_RUN:
            notes.append(
                "The weights start from an earlier run. That none of its patients is among these was confirmed by the "
                "user (--assume-disjoint-patients), and not checked for all."
            )
        elif self.trained_elsewhere:
            notes.append(
                f"The shards of the {self.trained_elsewhere} have pseudonyms of another key: shared scans were ruled "
                "out, shared patients could not be."
            )
        if self.scans == PATIENTS:
            notes.append(
                "Physicians of the paper's hospital agreed with each other at a Dice coefficient of at most "
                f"{PHYSICIANS_DICE:.3f} when they marked such lesions ({PHYSICIANS_SOURCE})."
            )
        return notes

    def to_json(self) -> dict[str, Any]:
        """A JSON object; figures of the paper in %, as printed."""
        return {
            "scans": self.scans,
            "changed_preparation": dict(self.changed_preparation),
            "other_cancers": list(self.other_cancers),
            "trained_elsewhere": self.trained_elsewhere,
            "sources": list(self.sources),
            "paper": {"source": SOURCE, "unit": "per cent", **dataclasses.asdict(self.paper)} if self.paper else None,
            "physicians_dice": PHYSICIANS_DICE if self.scans == PATIENTS else None,
            "notes": self.notes,
        }


def provenance(
    experiment: Experiment,
    records: Iterable[CaseRecord],
    settings: PreparationSettings,
    sources: Iterable[DataSource] = (),
) -> Provenance:
    """What the figures of `experiment` on these scans can be compared with.

    The paper's row goes with an unchanged experiment of the paper on scans prepared as in the paper. Whether it is
    shown depends on what the scans are, and of what cancer.
    """
    changed = settings.changes()
    row = PAPER_ROWS.get(experiment.name) if experiment.is_paper_row and not changed else None
    records = list(records)
    other_cancers = {record.cancer for record in records if record.cancer} - {CANCER}
    sources = list(sources)
    texts = tuple(source.text for source in sources)
    scans = scans_are(records)
    known = PUBLISHED_SCORES.get(tuple(sorted({one.name for one in sources})))
    # Nothing but this data set, all of it, in its own split and its own pixels.
    same = all(one.whole for one in sources) and experiment.folds == 1 and settings.bin == 1
    published = known if same and scans == PATIENTS else None
    kept = sum(record.part == "test" and record.group != UNKNOWN_GROUP for record in records)
    cancers = tuple(sorted(other_cancers))
    return Provenance(scans, changed, row, cancers, sources=texts, published=published, test_scans=kept)
