"""What the paper printed, as data: Tables 1 to 3, in per cent.

Source: Chen et al. 2023, Breast Cancer Bone Metastasis Lesion Segmentation on Bone Scintigraphy, section 3
(doi:10.20944/preprints202307.0674.v1, CC BY). All are pixel-wise figures of the metastatic class from a ten-fold
cross-validation over the scans of 90 breast-cancer patients with bone metastases, which are not public.
"""

import dataclasses

SOURCE = "Chen et al. 2023, doi:10.20944/preprints202307.0674.v1"
CANCER = "breast"
"""Of the patients whose scans were scored; those with prostate cancer served for pre-training only."""
Row = tuple[float, float, float]

TABLE_1_FOLDS: tuple[Row, ...] = (
    (49.21, 79.19, 60.70),
    (58.74, 64.98, 61.70),
    (70.56, 60.01, 64.86),
    (81.69, 52.20, 63.70),
    (60.57, 54.06, 57.13),
    (72.55, 45.92, 56.24),
    (43.63, 83.32, 57.27),
    (49.03, 68.21, 57.05),
    (61.73, 60.84, 61.28),
    (67.89, 61.13, 64.34),
)
"""Precision, sensitivity and F1 of each fold of the baseline."""

TABLE_3_FOLDS: tuple[Row, ...] = (
    (65.69, 72.10, 68.75),
    (67.51, 66.55, 67.03),
    (69.10, 69.82, 69.46),
    (82.94, 61.02, 70.31),
    (60.18, 61.69, 60.93),
    (77.22, 53.48, 63.19),
    (58.39, 70.78, 63.99),
    (51.06, 71.14, 59.45),
    (61.93, 65.56, 63.69),
    (59.15, 80.25, 68.10),
)
"""The same with augmentation."""

PHYSICIANS_DICE = 0.704
"""Physicians of one hospital agree with each other at this Dice coefficient when they outline metastases on such scans:
more than that no F1 on real scans can be held against."""


@dataclasses.dataclass(frozen=True)
class PaperRow:
    """The means of one experiment as printed, in per cent.

    Attributes:
        table: number of the table.
        precision, sensitivity: means over the folds.
        f1: harmonic mean of the two, which is what the paper prints as the mean of F1.
    """

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
