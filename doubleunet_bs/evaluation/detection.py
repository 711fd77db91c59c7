"""Patients instead of lesions: does the model see that somebody has metastases? (Decided here; not in the paper.)

A patient is called positive when a lesion is predicted in any of his scans. The area under the ROC curve ranks patients
by the largest probability of their lesions. The paper's folds test positive scans only: every normal scan trains in
every fold. Without normal scans that the model has not been trained on, specificity and the area under the curve do not
exist; they are None then, with the reason. A normal scan of a patient with metastases counts for the false-positive
lesions, but makes no normal patient.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from doubleunet_bs.evaluation.scan_score import ScanScore


@dataclasses.dataclass(frozen=True)
class Detection:
    """Figures of one model on patients that it has not seen.

    Attributes:
        positives, normals: number of patients. detected: positives with a predicted lesion.
        cleared: normals without one.
        normal_scans: number of normal scans. false_positives: lesions predicted in them.
        auc: area under the ROC curve, 0.5 when guessing; None without both kinds of patients.
        reason: why figures that need normal patients are None; None when they are there.
    """

    positives: int
    detected: int
    normals: int
    cleared: int
    normal_scans: int
    false_positives: int
    auc: float | None
    reason: str | None

    @property
    def sensitivity(self) -> float | None:
        """detected / positives, None without positives."""
        return self.detected / self.positives if self.positives else None

    @property
    def specificity(self) -> float | None:
        """cleared / normals, None without normals."""
        return self.cleared / self.normals if self.normals else None

    @property
    def false_positives_per_normal_scan(self) -> float | None:
        """None without normal scans."""
        return self.false_positives / self.normal_scans if self.normal_scans else None

    def to_json(self) -> dict[str, Any]:
        """Numbers and figures."""
        return {
            **dataclasses.asdict(self),
            "sensitivity": self.sensitivity,
            "specificity": self.specificity,
            "false_positives_per_normal_scan": self.false_positives_per_normal_scan,
        }


def detect(scans: Sequence[ScanScore], normals: Sequence[ScanScore], reason: str | None = None) -> Detection:
    """Patient-level figures.

    Args:
        scans: the test scans. normals: normal scans that the model has not been trained on.
        reason: why there are no normals, when there are none.

    Returns:
        A patient with a positive scan is positive, whatever his other scans are. Nothing in, nothing out: zeros and
        None.
    """
    probability: dict[str, float] = {}
    called: dict[str, bool] = {}
    positive: dict[str, bool] = {}
    for scan in (*scans, *normals):
        probability[scan.patient] = max(probability.get(scan.patient, 0.0), scan.probability)
        called[scan.patient] = called.get(scan.patient, False) or bool(scan.predicted_lesions)
        positive[scan.patient] = positive.get(scan.patient, False) or scan.group == "positive"
    sick = [patient for patient in positive if positive[patient]]
    well = [patient for patient in positive if not positive[patient]]
    empty = [scan for scan in (*scans, *normals) if scan.group == "negative"]
    auc = None
    if sick and well:
        from sklearn.metrics import roc_auc_score

        patients = list(positive)
        auc = float(roc_auc_score([positive[p] for p in patients], [probability[p] for p in patients]))
    return Detection(
        positives=len(sick),
        detected=sum(called[patient] for patient in sick),
        normals=len(well),
        cleared=sum(not called[patient] for patient in well),
        normal_scans=len(empty),
        false_positives=sum(len(scan.predicted_lesions) for scan in empty),
        auc=auc,
        reason=None if well else _reason(bool(empty), reason),
    )


def _reason(scans: bool, given: str | None) -> str:
    if scans:
        return "all normal scans are of patients with metastases"
    return given or "no normal scan was scored"
