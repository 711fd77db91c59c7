"""Shards -> a 2D data set of nnU-Net v2 with the folds of a run, so that both train and test on the same scans.

    DIR/nnUNet_raw/Dataset501_BoneScan/
        dataset.json                 channel, labels, number of cases
        imagesTr/CASE_0000.png       prepared grey image, uint8; anterior view on the left
        labelsTr/CASE.png            0 air, 1 non-metastatic, 2 metastatic, 3 benign where the shards have it
        imagesTs_fold_01/ ...        test scans of each fold, to predict; those of a published split are nowhere else
    DIR/nnUNet_preprocessed/Dataset501_BoneScan/splits_final.json

nnU-Net reads the split from there. Its fold 0 is fold 1 of the run.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from doubleunet_bs.constants import BENIGN, BENIGN_NAME, CLASS_NAMES
from doubleunet_bs.dataset.folds import Folds
from doubleunet_bs.display import png_bytes
from doubleunet_bs.errors import SettingsError
from doubleunet_bs.files import json_text, new_folder
from doubleunet_bs.preparation.shards import ShardedDataset

RAW, PREPROCESSED = "nnUNet_raw", "nnUNet_preprocessed"
"""Folders that nnU-Net's environment variables of these names point to."""
IMAGES, LABELS, TEST_IMAGES = "imagesTr", "labelsTr", "imagesTs_fold_{:02d}"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*")


def export_nnunet(
    dataset: ShardedDataset,
    folds: Folds,
    out: str | os.PathLike,
    name: str = "BoneScan",
    number: int = 501,
    normals: bool = True,
) -> str:
    """Write the shards as a data set of nnU-Net v2. The folder appears whole or not at all.

    Args:
        dataset: opened shards; their settings decide the size of the images.
        folds: of a run on these shards. The training scans of a fold train, its validation scans validate.
        out: folder to write, new or empty.
        name, number: nnU-Net calls the data set "Dataset501_BoneScan".
        normals: normal scans train as well, as in the paper's rows with negatives.

    Returns:
        The name of the data set.

    Raises:
        SettingsError: a name or number that nnU-Net does not take.
        BoneScanError: the folder exists already.
    """
    if not _NAME.fullmatch(name):
        raise SettingsError(f"--name {name}: letters and digits only")
    if not 1 <= number <= 999:
        raise SettingsError(f"--number {number}: must be 1 to 999")
    title = f"Dataset{number:03d}_{name}"
    indices = {case.case: index for index, case in enumerate(dataset.cases)}
    splits = [folds.split(fold) for fold in range(1, len(folds) + 1)]
    content = [
        {"train": [*split.train, *(split.negatives if normals else ())], "val": list(split.validation)}
        for split in splits
    ]
    # nnU-Net plans by all that lies in imagesTr, and trains its fold "all" on it.
    cases = list(dict.fromkeys(case for fold in content for case in (*fold["train"], *fold["val"])))
    with new_folder(out) as new:
        raw = new / RAW / title
        for sub in (IMAGES, LABELS, *(TEST_IMAGES.format(fold) for fold in range(1, len(folds) + 1))):
            (raw / sub).mkdir(parents=True)
        for case in tqdm(cases, "export", unit="scan", disable=None):
            (raw / IMAGES / _image(case)).write_bytes(png_bytes(dataset.grey(indices[case])))
            (raw / LABELS / f"{case}.png").write_bytes(png_bytes(np.asarray(dataset.labels(indices[case]))))
        for fold, split in enumerate(splits, start=1):
            for case in split.test:
                image = raw / TEST_IMAGES.format(fold) / _image(case)
                image.write_bytes(png_bytes(dataset.grey(indices[case])))
        (raw / "dataset.json").write_text(
            json_text(_description(len(cases), dataset.settings.benign == "own")), encoding="utf-8"
        )
        (new / PREPROCESSED / title).mkdir(parents=True)
        (new / PREPROCESSED / title / "splits_final.json").write_text(json_text(content), encoding="utf-8")
    return title


def commands(out: str | os.PathLike, title: str, folds: Sequence[int]) -> str:
    """The commands that plan, train and predict with nnU-Net, for a person to copy."""
    folder = Path(out).absolute()
    number = title[len("Dataset") :].split("_")[0]
    lines = [
        *(f"export {name}={folder / name}" for name in (RAW, PREPROCESSED, "nnUNet_results")),
        f"nnUNetv2_plan_and_preprocess -d {number} -c 2d --verify_dataset_integrity",
    ]
    for fold in folds:
        images, masks = folder / RAW / title / TEST_IMAGES.format(fold), folder / "nnU-Net" / f"fold_{fold:02d}"
        lines.append(f"nnUNetv2_train {number} 2d {fold - 1}")
        lines.append(f"nnUNetv2_predict -d {number} -c 2d -f {fold - 1} -i {images} -o {masks}")
    return "\n".join(lines)


def _image(case: str) -> str:
    return f"{case}_0000.png"


def _description(cases: int, benign: bool) -> dict[str, Any]:
    # nnU-Net calls class 0 "background".
    labels = {"background" if value == 0 else label: value for value, label in enumerate(CLASS_NAMES)}
    labels |= {BENIGN_NAME: BENIGN} if benign else {}
    return {
        "channel_names": {"0": "scintigraphy"},
        "labels": labels,
        "numTraining": cases,
        "file_ending": ".png",
    }
