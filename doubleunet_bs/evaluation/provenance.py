"""What scans the figures come from, and what they may be held against.

Figures on phantoms are a software check. Figures on patients may be read beside the paper's, but the patients are
others. So the paper's row stands under the figures only where every scan is known to be of a patient and none is
recorded as of another cancer than the paper's, breast cancer (decided here).
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from doubleunet_bs.evaluation.paper_tables import CANCER, PAPER_ROWS, PHYSICIANS_DICE, SOURCE, PaperRow
from doubleunet_bs.preparation.records import MIXED, PATIENTS, PHANTOMS, UNKNOWN, CaseRecord, scans_are
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.training.experiments import Experiment

_NOTES = {
    PHANTOMS: "Phantom scans: a software check, not comparable with any figure of patients.",
    MIXED: "Some of the scans are phantoms: the figures say nothing about patients.",
    UNKNOWN: "The shards do not say whether their scans are phantoms: prepare them again before the figures are used.",
    PATIENTS: "Scans of patients.",
}


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Of the scans of a run.

    Attributes:
        scans: "phantoms", "patients", "mixed" or "unknown".
        changed_preparation: what differs from the paper's preparation.
        row: the paper's row, for an experiment of the paper with nothing changed; else None.
        other_cancers: those recorded of a scan that are not the paper's; a scan of which nobody said is of none.
        trained_elsewhere: what the network was trained on beside these scans, "pre-training" or "training", with pseudonyms of
            another key: whether a patient of these scans is among them could not be checked. Else None.
    """

    scans: str = UNKNOWN
    changed_preparation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    row: PaperRow | None = None
    other_cancers: tuple[str, ...] = ()
    trained_elsewhere: str | None = None

    @property
    def paper(self) -> PaperRow | None:
        """The paper's row to be shown: `row` where every scan is of a patient and none of another cancer, else None."""
        return self.row if self.scans == PATIENTS and not self.other_cancers else None

    @property
    def notes(self) -> list[str]:
        """Sentences that belong under every table of these figures."""
        notes = [_NOTES[self.scans]]
        if self.changed_preparation:
            changed = ", ".join(f"{name} {value}" for name, value in self.changed_preparation.items())
            notes.append(f"The preparation is not the paper's ({changed}).")
        if self.paper:
            notes.append(
                f"The paper's row (Table {self.paper.table}, {SOURCE}) is from other scans, which are not public: "
                "the data differ, and so may the figures for that reason alone."
            )
        elif self.row and self.scans == PATIENTS:
            notes.append(
                f"The paper's row is left out: scans are recorded as of {' and '.join(self.other_cancers)} cancer, the "
                f"paper's are of {CANCER} cancer."
            )
        elif self.row:
            notes.append("The paper's row is left out: these are not (or not known to be) scans of patients.")
        if self.trained_elsewhere:
            notes.append(
                f"The shards of the {self.trained_elsewhere} have pseudonyms of another key: that none of their scans is among "
                "these was checked, that none of their patients is could not be."
            )
        if self.scans == PATIENTS:
            notes.append(
                f"Physicians of one hospital agree with each other at a Dice coefficient of {PHYSICIANS_DICE:.3f} "
                "when they outline such lesions."
            )
        return notes

    def without_paper(self) -> "Provenance":
        """The same for figures that no row of the paper has a counterpart of."""
        return dataclasses.replace(self, row=None)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; figures of the paper in per cent, as printed."""
        return {
            "scans": self.scans,
            "changed_preparation": dict(self.changed_preparation),
            "other_cancers": list(self.other_cancers),
            "trained_elsewhere": self.trained_elsewhere,
            "paper": {"source": SOURCE, "unit": "per cent", **dataclasses.asdict(self.paper)} if self.paper else None,
            "physicians_dice": PHYSICIANS_DICE if self.scans == PATIENTS else None,
            "notes": self.notes,
        }


def provenance(experiment: Experiment, records: Iterable[CaseRecord], settings: PreparationSettings) -> Provenance:
    """What the figures of `experiment` on these scans are.

    The paper's row goes with an experiment of the paper of which no setting was changed, on scans that were prepared as
    in the paper; whether it is shown depends on what the scans are, and of what cancer. The map of annotation labels is
    the user's own and changes nothing.
    """
    changed = settings.changes()
    row = PAPER_ROWS.get(experiment.name) if experiment.is_paper_row and not changed else None
    records = list(records)
    other_cancers = {record.cancer for record in records} - {None, CANCER}
    return Provenance(scans_are(records), changed, row, tuple(sorted(other_cancers)))
