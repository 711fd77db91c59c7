"""Draw assets/augmentation.png: the fourteen variants of one phantom, as the network sees them (paper, section 2.7).

    python tests/benchmarks/draw_augmentation.py [assets/augmentation.png]

All are shown in one and the same window; the outline is that of the lesions.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from doubleunet_bs.constants import METASTATIC
from doubleunet_bs.dataset.augmentation import Augmentation, brightness_levels
from doubleunet_bs.files import replace_file
from doubleunet_bs.phantom import make_cohort
from doubleunet_bs.preparation.cohort import CohortJob, prepare_cohort
from doubleunet_bs.preparation.shards import ShardedDataset, open_shards

SHOWN_WHITE = 100
"""Grey level shown in full white: most of the skeleton lies below it."""


def main(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cohort = make_cohort(Path(folder) / "phantoms", 1, positive_fraction=1.0, seed=8)
        shards = Path(folder) / "shards"
        prepare_cohort(CohortJob(scans=cohort / "scans", labels=cohort / "labels", out=shards, pictures=False))
        draw(path, open_shards(shards), 0)


def draw(path: Path, dataset: ShardedDataset, index: int) -> None:
    augmentation = Augmentation(dataset, [index])
    levels = brightness_levels(dataset.cases[index].brightness)
    figure = Figure(figsize=(14, 5.2), dpi=100, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(levels))
    for variant in range(augmentation.variants):
        level, flipped = divmod(variant, 2)
        grey, labels = augmentation.show(index, variant)
        panel = axes[flipped, level]
        panel.imshow(np.minimum(grey, SHOWN_WHITE), cmap="gray", vmin=0, vmax=SHOWN_WHITE, interpolation="antialiased")
        panel.contour(labels == METASTATIC, levels=[0.5], colors=["#ee6677"], linewidths=0.7)
        panel.set_xticks([])
        panel.set_yticks([])
        if not flipped:
            own = " (its own)" if level == len(levels) // 2 else ""
            panel.set_title(f"mean {levels[level]:.2f}{own}", fontsize=11)
        if level == 0:
            panel.set_ylabel("mirrored as a whole" if flipped else "as scanned", fontsize=11)
    replace_file(path, lambda temporary: figure.savefig(temporary, metadata={"Software": None}))


if __name__ == "__main__":
    default = Path(__file__).resolve().parents[2] / "assets" / "augmentation.png"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
