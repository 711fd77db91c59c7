"""A run whose network, one 1 x 1 convolution, calls grey levels above 150 metastatic: its scores are known by hand."""

import dataclasses
from pathlib import Path

import numpy as np

from doubleunet_bs.files import write_json
from doubleunet_bs.inference.model_description import ModelDescription
from doubleunet_bs.preparation.geometry import BodyBox, Placement
from doubleunet_bs.preparation.records import CaseRecord, count_cohort
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.preparation.shards import ShardWriter, open_shards

LEVEL = 150
BODY = 30
SETTINGS = PreparationSettings(bin=4)
FALSE_PIXELS = (4, 8, 12, 16, 20, 24)
SHAPE = (32, 48)


def make_shards(
    path: Path, first: int = 0, phantom: bool = False, settings=SETTINGS, rounds: int = 1, key_mark=None
) -> Path:
    """Six positive cases of 160 x 128 pixels and a negative one, or `rounds` times as many positive ones.

    Each positive case has 16 metastatic pixels of grey level 200, 8 of grey level 100, and 4 to 24 other pixels of
    grey level 220: the network finds 16, misses 8 and is wrong in the last ones. With a benign class every case has 16
    benign pixels in the anterior view and 8 others in the posterior one, all of grey level 120, which the network of 4
    classes calls benign.

    Args:
        first: number of the first case; pseudonyms and counts follow from it.
        phantom: what the records say of it.
        settings: what the records say of the preparation. In finer images each pixel is a block.
        key_mark: of the key of its pseudonyms.
    """
    path.mkdir(parents=True)
    writer = ShardWriter(path, settings, key_mark=key_mark)
    block = SETTINGS.bin // settings.bin
    for index, wrong in enumerate((*FALSE_PIXELS * rounds, 0)):
        counts = np.full(SETTINGS.image_shape, 10, np.uint16)
        labels = np.ones(SETTINGS.image_shape, np.uint8)
        if wrong:
            for rows, columns, grey in ((slice(40, 44), slice(20, 24), 200), (slice(60, 62), slice(90, 94), 100)):
                counts[rows, columns], labels[rows, columns] = grey, 2
            counts[100 : 100 + wrong // 4, 30:34] = 220
        if settings.benign == "own":
            counts[120:124, 20:24], labels[120:124, 20:24] = 120, 3
            counts[130:132, 90:94] = 120
        counts, labels = (image.repeat(block, axis=0).repeat(block, axis=1) for image in (counts, labels))
        group = "positive" if wrong else "negative"
        record = _record(first + index, group, int((labels == 2).sum()), phantom)
        writer.add(dataclasses.replace(record, benign_pixels=int((labels == 3).sum())), counts, labels)
    writer.finish()
    return path


def make_run(
    path: Path, shards: Path, folds=(1, 2), experiment="focal-tversky-otsu", level=LEVEL, folds_of=3, **changes
) -> Path:
    """A run of `folds_of` folds on `shards`, of which `folds` are trained to call grey above `level` metastatic."""

    from doubleunet_bs.runs.create_run import create_run
    from doubleunet_bs.runs.experiments import paper_experiment

    dataset = open_shards(shards)
    settings = {"folds": folds_of, "encoder_weights": "none"} | changes
    run = create_run(path, paper_experiment(experiment, **settings), dataset)
    for fold in folds:
        write_fold(run, dataset, fold, intensity_model(*dataset.image_shape, level, run.experiment.classes))
    return path


def write_fold(run, dataset, fold: int, model, f1: float | None = 0.6) -> Path:
    """The folder that training leaves, with `model` in it; its best epoch is the third, with the validation F1 `f1`."""
    from doubleunet_bs.runs.history import Epoch, write_history

    folder = run.fold_path(fold)
    folder.mkdir()
    model.save(folder / "model.keras")
    model.save_weights(folder / "best.weights.h5")
    figures = (0.5, 0.5, 0.5)
    epochs = [
        Epoch(1, 1.0, *figures, 1.0, 0.0, 0.0, 0.0, 1e-4, 1.0),
        Epoch(2, 0.9, *figures, 0.9, f1, f1, f1, 1e-4, 1.0),
        Epoch(3, 0.8, *figures, 0.8, f1, f1, f1, 1e-4, 1.0),
        Epoch(4, 0.7, *figures, 0.7, None, 0.0, 0.0, 1e-4, 1.0),
    ]
    write_history(folder / "history.csv", epochs)
    folds = run.folds(dataset)
    groups = {"training": folds.split(fold).train, "validation": folds.split(fold).validation}
    cohorts = {name: count_cohort(one for one in dataset.cases if one.case in own) for name, own in groups.items()}
    write_json(
        folder / "environment.json", {"folds_sha256": folds.sha256(), "precision": "float32", "cohorts": cohorts}
    )
    return folder


def intensity_model(rows: int, columns: int, level: float = LEVEL, classes: int = 3):
    """Metastatic where the grey level is above `level`, air elsewhere; outputs as of the softmax or sigmoid network.

    With 4 classes grey above 100 up to `level` is benign.

    Scaled by a batch normalisation, which no engine computes in bfloat16 by itself: there 150 and 151 are one number.
    """
    import keras

    image = keras.Input((rows, columns, 3), name="image")
    own = np.array([0, 0, 1], np.float32)
    scale, offset = 255 * own, -(level + 0.5) * own
    if classes == 3:
        offset[1] = -1000
    if classes == 4:
        kernel = np.zeros((1, 1, 3, 4), np.float32)
        kernel[0, 0, 0] = 0, 0, 2 * 255, 255
        bias = np.array([0, -1000, -(level + 101), -100.5], np.float32)
    outputs = []
    for name in ("output1", "output2"):
        if classes == 4:
            head = keras.layers.Conv2D(4, 1, name=f"{name}_logits")
        else:
            head = keras.layers.BatchNormalization(epsilon=1e-6, name=f"{name}_logits")
        logits = head(image)
        head.set_weights([kernel, bias] if classes == 4 else [scale, offset, 0 * own, 0 * own + 1 - 1e-6])
        if classes == 1:
            logits = logits[..., 2:]
        outputs.append(keras.layers.Activation("softmax" if classes >= 3 else "sigmoid", name=name)(logits))
    if classes == 1:
        return keras.Model(image, keras.layers.Concatenate(name="outputs")(outputs))
    return keras.Model(image, dict(zip(("output1", "output2"), outputs, strict=True)))


def region_model(rows, columns, region):
    """A network that calls every pixel above grey level `BODY` the same region."""
    import keras

    image = keras.Input((rows, columns, 3), name="image")
    weights, bias = np.zeros((1, 1, 3, 13), np.float32), np.full(13, -1000, np.float32)
    weights[0, 0, 0, region], bias[region], bias[0] = 255, -BODY - 0.5, 0
    outputs = {}
    for name in ("output1", "output2"):
        head = keras.layers.Conv2D(13, 1, name=f"{name}_logits")
        outputs[name] = keras.layers.Activation("softmax", name=name)(head(image))
        head.set_weights([weights, bias])
    return keras.Model(image, outputs)


def export_regions(folder: Path, settings=SETTINGS) -> Path:
    """An exported model of the skeleton: all of the body is skull."""
    from doubleunet_bs.serving.export import write_saved_model

    described = description(settings.image_shape, 13)
    described = dataclasses.replace(
        described, experiment={"name": "skeleton", "classes": 13}, preparation=settings, weights_sha256="5" * 64
    )
    folder.mkdir()
    write_saved_model(folder, region_model(*settings.image_shape, 1), described)
    return folder


def _record(index: int, group: str, metastatic_pixels: int, phantom: bool) -> CaseRecord:
    views = ("anterior", "posterior")
    return CaseRecord(
        case=f"case-{index:012x}",
        patient=f"patient-{index:012x}",
        group=group,
        cancer="breast",
        shard=0,
        row=0,
        gains=(1.0, 1.0),
        brightness=10.0,
        placements={view: Placement(0, 0) for view in views},
        bodies={view: BodyBox(0, 700, 0, 255) for view in views},
        raw_shape=(1024, 256),
        pixel_spacing_mm=(2.4, 2.4),
        missing_views=(),
        sum_counts=1_000_000,
        uptake_fraction=0.2,
        metastatic_pixels=metastatic_pixels,
        warnings=(),
        source_sha256="",
        pixel_sha256=f"{index:064x}",
        phantom=phantom,
    )


def description(shape=SHAPE, classes=3) -> ModelDescription:
    return ModelDescription(
        experiment={"name": "dice", "classes": classes},
        fold=1,
        preparation=SETTINGS,
        image_shape=shape,
        data_fingerprint="data",
        weights_sha256="0" * 64,
        best_epoch=7,
        validation_f1=0.5,
        trained_on="patients",
        **dict.fromkeys(("training", "validation", "cohort"), count_cohort([_record(0, "positive", 9, False)])),
    )
