"""Time of `evaluate` on all folds: how much of it is prediction, and what the rest is.

    python tests/benchmarks/bench_evaluate.py [--scans 20] [--folds 10] [--bin 1]

A phantom cohort is made and prepared, and every fold of a run gets the real network with the same random weights. Then
the run is evaluated once, with tables, pictures and report, in one process. For comparison it prints the time of the
same predictions in the engine that `predict` chooses, and the share the rest would then have. Goal: under 10 %.
"""

import argparse
import collections
import contextlib
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from bench_predict import save_network
from bench_startup import make_shards
from measuring import print_environment, take_turns, timed


def make_run_folder(folder: Path, scans: int, folds: int, bin: int) -> Path:
    """Phantoms, shards, and a run whose folds all are trained to the same random weights."""
    make_shards(folder, scans, bin)

    import keras

    from doubleunet_bs.files import write_json
    from doubleunet_bs.network import double_unet
    from doubleunet_bs.preparation.records import count_cohort
    from doubleunet_bs.preparation.shards import open_shards
    from doubleunet_bs.runs.create_run import create_run
    from doubleunet_bs.runs.experiments import paper_experiment
    from doubleunet_bs.runs.history import Epoch, write_history

    dataset = open_shards(folder / "shards")
    experiment = paper_experiment("focal-tversky-otsu", folds=folds, encoder_weights="none")
    run = create_run(folder / "run", experiment, dataset)
    keras.utils.set_random_seed(0)
    # About as much is called metastatic as in a trained network.
    model = double_unet((*dataset.image_shape, 3), head_bias=[0.0, -1.0, -2.0])
    model.save(folder / "model.keras")
    model.save_weights(folder / "best.weights.h5")
    for number in range(1, folds + 1):
        fold = run.fold_path(number)
        fold.mkdir()
        for name in ("model.keras", "best.weights.h5"):
            os.link(folder / name, fold / name)
        write_history(fold / "history.csv", [Epoch(1, 1.0, 0.5, 0.5, 0.5, 1.0, 0.5, 0.5, 0.5, 1e-4, 1.0)])
        about = {"folds_sha256": run.folds(dataset).sha256(), "precision": "float32"}
        about["cohorts"] = dict.fromkeys(("training", "validation"), count_cohort(dataset.cases))
        write_json(fold / "environment.json", about)
    return folder / "run"


@contextlib.contextmanager
def timed_parts(seconds: dict[str, float]):
    """Add up the time in each part of an evaluation."""
    from doubleunet_bs.evaluation import evaluate, scorer
    from doubleunet_bs.evaluation.scorer import Scorer
    from doubleunet_bs.evaluation.stored_predictions import StoredPredictions
    from doubleunet_bs.inference.keras_model import Segmenter

    parts = [
        (Segmenter, "__call__", "prediction"),
        (scorer, "open_model", "loading the networks"),
        (Scorer, "score", "scores of scans"),
        (Scorer, "threshold", "intensity threshold"),
        (Scorer, "draw", "pictures"),
        (StoredPredictions, "keep", "keeping predictions"),
        (evaluate, "write_summary", "tables"),
        (evaluate, "write_report", "report"),
    ]
    running: list[list[float]] = []

    def wrap(function, name):
        def wrapped(*args, **kwargs):
            running.append([0.0])
            begun = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                taken = time.perf_counter() - begun
                # What parts inside this one take is theirs.
                seconds[name] += taken - running.pop()[0]
                if running:
                    running[-1][0] += taken

        return wrapped

    originals = [(owner, name, vars(owner)[name]) for owner, name, _ in parts]
    for owner, name, label in parts:
        setattr(owner, name, wrap(getattr(owner, name), label))
    try:
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def faster_seconds(folder: Path, bin: int, rounds: int = 5) -> tuple[str, float]:
    """Name and seconds an image of the engine that `predict` takes on this machine."""
    from doubleunet_bs.inference.keras_model import load_keras_model
    from doubleunet_bs.inference.model_folder import find_model
    from doubleunet_bs.inference.predictor import open_engine
    from doubleunet_bs.preparation.settings import PreparationSettings

    settings = PreparationSettings(bin=bin)
    save_network(folder / "saved_model", load_keras_model(folder / "model.keras"), settings)
    engine = open_engine(find_model(folder / "saved_model"))
    grey = np.random.default_rng(0).poisson(10, (1, *settings.image_shape)).astype(np.uint8)
    taken = take_turns({engine.name: partial(timed, engine, grey)}, rounds)[engine.name]
    return engine.name, statistics.median(found.wall for found in taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=20)
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--bin", type=int, choices=(1, 2, 4), default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        from doubleunet_bs.tensorflow_setup import import_tensorflow

        import_tensorflow()
        run = make_run_folder(folder, args.scans, args.folds, args.bin)
        from doubleunet_bs.evaluation.evaluate import evaluate_run

        print_environment("tensorflow", "keras")
        seconds = collections.defaultdict(float)
        with timed_parts(seconds):
            whole, processor = timed(evaluate_run, run, show_progress=False)
        folds = len(list(run.glob("fold_*/scores.json")))
        predicted = sum(len(list((fold / "predictions").glob("*.npz"))) for fold in run.glob("fold_*"))
        print(f"\n{folds} folds, {args.scans} scans, {predicted} predictions of 1/{args.bin} resolution, float32")
        seconds["everything else"] = whole - sum(seconds.values())
        for name, value in sorted(seconds.items(), key=lambda part: -part[1]):
            print(f"  {name:24}{value:8.2f} s{value / whole:8.1%}")
        print(f"  {'evaluate in all':24}{whole:8.2f} s   (processor {processor:.1f} s)")
        rest = whole - seconds["prediction"]
        network = rest - seconds["loading the networks"]
        name, each = faster_seconds(folder, args.bin)
        faster = each * predicted
        print(
            f"outside of prediction and loading: {network:.1f} s, {network / whole:.1%} of it; "
            f"{network / predicted:.3f} s a scan"
        )
        print(f"with {name}, {each:.2f} s a scan, it would be {network / (network + faster):.1%}")


if __name__ == "__main__":
    main()
