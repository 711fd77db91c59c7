"""Proof that it learns and does not only run: the real network overfits a handful of phantoms, with every loss and head.

Four phantoms of the coarse matrix, 64 x 64 pixels around the trunk of the anterior view, at the classes and settings of
the paper's rows but for the learning rate (1e-3), batch normalisation's momentum (0.9) and the random start of the encoder.
"""

import dataclasses

import numpy as np
import pytest

from doubleunet_bs.constants import METASTATIC
from doubleunet_bs.dataset.pipeline import training_pieces
from doubleunet_bs.phantom import make_phantom
from doubleunet_bs.pixel_counts import precision_sensitivity_f1
from doubleunet_bs.preparation import prepare_scan
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.scans.bone_scan import BoneScan
from doubleunet_bs.training.devices import choose_machine, open_replicas
from doubleunet_bs.training.experiments import paper_experiment
from doubleunet_bs.training.trainer import Trainer

TRUNK = np.s_[32:96, 0:64]
PHANTOMS = 4
SMALLEST_BURDEN = 30
STEPS = 160


@dataclasses.dataclass(frozen=True)
class TrunkCase:
    case: str
    patient: str
    group: str
    metastatic_pixels: int


class Trunks:
    """The first phantoms of seed 0 with enough metastatic pixels in the trunk, in place of shards."""

    def __init__(self):
        self.settings = PreparationSettings(bin=4)
        self.image_shape = (64, 64)
        self.fingerprint = "trunks of phantoms"
        self.pictures = []
        for number in range(60):
            phantom = make_phantom(0, number)
            scan = BoneScan(phantom.anterior, phantom.posterior, phantom.pixel_spacing_mm, f"case-{number}")
            prepared = prepare_scan(scan, phantom.lesions, self.settings)
            grey, labels = prepared.grey[TRUNK], prepared.labels[TRUNK]
            if np.count_nonzero(labels == METASTATIC) >= SMALLEST_BURDEN:
                self.pictures.append((grey, labels))
            if len(self.pictures) == PHANTOMS:
                break
        self.cases = [
            TrunkCase(f"case-{index}", f"patient-{index}", "positive", int((labels == METASTATIC).sum()))
            for index, (_, labels) in enumerate(self.pictures)
        ]

    def grey(self, index):
        return self.pictures[index][0]

    def labels(self, index):
        return self.pictures[index][1]


@pytest.fixture(scope="module")
def trunks():
    found = Trunks()
    assert len(found.cases) == PHANTOMS
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["baseline", "dice", "focal-tversky"])
def test_the_network_overfits_a_handful_of_phantoms(tmp_path, trunks, name):
    replicas = open_replicas("cpu")
    experiment = paper_experiment(name, learning_rate=1e-3, bn_momentum=0.9, encoder_weights="none", epochs=STEPS)
    trainer = Trainer(
        tmp_path / "run",
        experiment,
        trunks,
        range(PHANTOMS),
        range(PHANTOMS),
        replicas,
        title=name,
        precision=choose_machine(replicas, "auto").precision,
        show_progress=False,
    )
    trainer._build()
    iterator = iter(trainer._distribute(training_pieces(trunks, range(PHANTOMS), PHANTOMS, 1, 0, 0, STEPS)))
    reached = []
    for step in range(1, STEPS + 1):
        _, counts, _ = trainer.steps.train(iterator)
        # As it will be used: with the moving averages. Asked for only once the batch itself is found.
        if step % 10 == 0 and (precision_sensitivity_f1(*counts)[2] or 0) > 0.9:
            f1 = precision_sensitivity_f1(*trainer._validate()[1])[2] or 0.0
            reached.append((step, round(f1, 3)))
            if f1 > 0.9:
                break
    print(f"{name}: F1 after so many steps {reached}")
    assert reached and reached[-1][1] > 0.9
