"""The public data sets that `prepare --dataset` knows: what must be in them, their licences and citations."""

import dataclasses
from collections.abc import Mapping

from doubleunet_bs.preparation.records import DataSource

WEAK = "Weak labels: the masks were made from boxes by a rule, not drawn, so a score says how well that rule is met."
RECTANGLES = "Weak labels: the masks are boxes around the hot spots, so no score on them is a score of outlines."
UNUSED = "unused"


@dataclasses.dataclass(frozen=True)
class PublicDataset:
    """What is known of a public data set.

    Attributes:
        name: as `prepare --dataset` takes it.
        licence, citation, remarks: see `DataSource`.
        patients: how many there are.
        parts: cases of each part of its published split.
        folders: "anterior" and "posterior" -> folder of the pictures of that view, called `N.jpg`.
        damaged: numbers of patients some of whose pictures do not open.
        doubles: pairs of numbers that are one patient.
        children: numbers of patients who are children.
    """

    name: str
    licence: str
    citation: str
    remarks: tuple[str, ...] = ()
    patients: int = 0
    parts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    folders: Mapping[str, str] = dataclasses.field(default_factory=dict)
    damaged: frozenset[int] = frozenset()
    doubles: tuple[tuple[int, int], ...] = ()
    children: frozenset[int] = frozenset()

    def source(self, whole: bool, *remarks: str) -> DataSource:
        """What results say of it."""
        return DataSource(self.name, self.licence, self.citation, (*self.remarks, *remarks), whole)


BS80K = PublicDataset(
    "bs80k",
    licence="none stated",
    citation="Huang et al. 2022, BS-80K, doi:10.1016/j.compbiomed.2022.106221",
    patients=3247,
    folders={"anterior": "wholeBodyANT", "posterior": "wholeBodyPOST"},
    damaged=frozenset({722, 779, 1654}),
    doubles=((312, 570), (828, 2244), (831, 3216), (832, 3245)),
    children=frozenset({1240}),
)
BS80K_MASKS = PublicDataset(
    "bs80k-masks",
    licence="CC BY 4.0",
    citation="masks for BS-80K, doi:10.5281/zenodo.23190333",
    remarks=(WEAK,),
    parts={"train": 2340, "validation": 292, "test": 293, UNUSED: 322},
)
BS80K_SKELETON = PublicDataset(
    "bs80k-skeleton",
    licence="CC BY-SA 4.0",
    citation="skeletons for BS-80K, doi:10.5281/zenodo.20342310",
)
SKELETONS = {"anterior": 1841, "posterior": 1752}
PARAGUAY = PublicDataset(
    "paraguay",
    licence="CC BY 4.0",
    citation="bone scans from Paraguay, PMC11699483, doi:10.5281/zenodo.13900966",
    remarks=("The class of the patient is known, no metastasis is outlined.",),
    patients=291,
)
PARAGUAY_METASTASES = 60
DATASETS = {one.name: one for one in (BS80K_MASKS, BS80K, BS80K_SKELETON, PARAGUAY)}
