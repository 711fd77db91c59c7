"""Transfer and negative mining from shards to a SavedModel, interrupted at every stage and between them."""

import dataclasses
import json
import os
import shutil
import signal
import sys

import keras
import numpy as np
import pytest
import tensorflow
from staged_run import BREAST, PROSTATE, SETTINGS, assert_same, result, train, write_mark
from two_convolutions import two_convolutions

from doubleunet_bs.errors import RunError
from doubleunet_bs.runs.experiments import paper_experiment
from doubleunet_bs.runs.locks import FOLDER, locked
from doubleunet_bs.runs.run_folder import open_run
from doubleunet_bs.training import run_training, stages
from doubleunet_bs.training import trainer as trainer_module
from doubleunet_bs.training.devices import open_replicas
from doubleunet_bs.training.stages import FoldStages, stage_names
from doubleunet_bs.training.steps import Steps
from doubleunet_bs.training.trainer import Interrupted, Trainer

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True, scope="module")
def network():
    """Eager steps: compiling each of the many short trainings takes longer. `test_resume` compiles."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("doubleunet_bs.training.build_network.double_unet", two_convolutions)
        patch.setattr("doubleunet_bs.training.trainer.draw_progress", lambda *arguments: None)
        tensorflow.config.run_functions_eagerly(True)
        yield
        tensorflow.config.run_functions_eagerly(False)


def fold_stages(run, fold):
    return FoldStages(run, BREAST, run.folds(BREAST), fold, open_replicas("cpu"), show_progress=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, network):
    """A whole run of transfer and mining, two folds of it trained."""
    path = tmp_path_factory.mktemp("trained") / "run"
    train(path)
    train(path, fold=3)
    return path


def test_rows_have_their_stages():
    names = {name: stage_names(paper_experiment(name)) for name in ("dice-otsu", "dice-mining", "dice-otsu-transfer")}
    assert names == {
        "dice-otsu": ("fold",),
        "dice-mining": ("mining_model", "mined_negatives", "fold"),
        "dice-otsu-transfer": ("pretrain", "fold"),
    }
    assert stage_names(paper_experiment("dice-mining-transfer")) == (
        "pretrain",
        "mining_model",
        "mined_negatives",
        "fold",
    )


def test_the_run_folder_shows_the_stages_in_their_order(trained):
    content = json.loads((trained / "fold_01" / "stages.json").read_text())
    assert [(stage["stage"], stage["folder"], stage["done"]) for stage in content["stages"]] == [
        ("pretrain", "pretrain", True),
        ("mining_model", "fold_01/mining_model", True),
        ("mined_negatives", "fold_01/mined_negatives", True),
        ("fold", "fold_01", True),
    ]
    assert (trained / "fold_01" / "saved_model" / "saved_model.pb").is_file()
    assert not any((trained / FOLDER).iterdir()), "no lock is left"
    assert open_run(trained).trained_folds() == [1, 3]


def test_each_stage_trains_on_its_own_scans(trained):
    groups = {case.case: case.group for case in BREAST.cases}
    run = open_run(trained)
    for fold in (1, 3):
        split = run.folds(BREAST).split(fold)
        held_out = {*split.test, *split.validation}
        seen = {}
        for name in ("fold_{0:02d}/mining_model", "fold_{0:02d}"):
            environment = json.loads((trained / name.format(fold) / "environment.json").read_text())
            seen[name] = set(environment["trained_on"])
            assert not seen[name] & held_out
        mining, final = seen.values()
        assert {groups[case] for case in mining} == {"positive"} and mining == set(split.train)
        assert final == mining | set(split.negatives)
        mined = json.loads((trained / f"fold_{fold:02d}" / "mined_negatives" / "mined.json").read_text())
        assert set(mined["false_positive_pixels"]) == set(split.negatives)
    environment = json.loads((trained / "pretrain" / "environment.json").read_text())
    assert environment["data_fingerprint"] == PROSTATE.fingerprint
    # Ten positive scans of which a third validates, and two normal ones.
    assert len(environment["trained_on"]) in (8, 9)


def test_every_fold_starts_from_the_one_pretraining(trained):
    environments = [json.loads((trained / f"fold_0{fold}" / "environment.json").read_text()) for fold in (1, 3)]
    assert environments[0]["pretrain_sha256"] == environments[1]["pretrain_sha256"]
    run = open_run(trained)
    trainer = fold_stages(run, 2).mining_model()
    trainer._build()
    pretrained = keras.models.load_model(trained / "pretrain" / "model.keras")
    for one, other in zip(trainer.model.weights, pretrained.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_what_was_mined_is_what_trains(trained):
    """The last stage sees the mined labels on the normal scans, not the Otsu mask."""
    run = open_run(trained)
    trainer = fold_stages(run, 1).final()
    model = keras.models.load_model(trained / "fold_01" / "mining_model" / "model.keras")
    normal = [index for index in trainer.train_cases if BREAST.cases[index].group == "negative"]
    assert normal
    total = 0
    for index in normal:
        image = np.repeat(BREAST.grey(index)[None, ..., None], 3, -1).astype(np.float32) / 255
        found = keras.ops.convert_to_numpy(model(image)["output2"]).argmax(-1)[0] == 2
        np.testing.assert_array_equal(trainer.dataset.labels(index), found.astype(np.uint8))
        total += found.sum()
    assert total, "this model finds nothing on normal scans: the test would prove nothing"


@pytest.mark.parametrize("start", ["initial", "mined"])
def test_where_the_last_stage_starts(trained, start):
    run = open_run(trained)
    run = dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, mining_start=start))
    trainer = fold_stages(run, 1).final()
    folder = {"initial": "pretrain", "mined": "fold_01/mining_model"}[start]
    assert trainer.task.initial_weights == trained / folder / "best.weights.h5"


def stop_at_step(monkeypatch, number):
    """SIGTERM to this process during the training step of this number, counted over all stages."""
    steps, done = Steps.train, []

    def counted(*arguments):
        done.append(None)
        if len(done) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return steps(*arguments)

    monkeypatch.setattr(Steps, "train", counted)


def signal_during(monkeypatch, target, name, number=1):
    """SIGTERM to this process in the call of this number of a function, which does its work all the same."""
    work, calls = getattr(target, name), []

    def signalled(*arguments, **options):
        calls.append(None)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return work(*arguments, **options)

    monkeypatch.setattr(target, name, signalled)
    return calls


@pytest.mark.parametrize("where", ["last batch", "last validation", "model", "export"])
def test_a_signal_is_heard_wherever_it_comes(tmp_path, monkeypatch, where):
    """And no other fold begins after it."""
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        # Two epochs of two batches, each with a validation.
        target, name, number = {
            "last batch": (trainer_module.Trainer, "_end_epoch", 2),
            "last validation": (trainer_module.Trainer, "_validate", 2),
            "model": (trainer_module, "plain_network", 1),
            "export": (sys.modules[__name__], "write_mark", 1),
        }[where]
        calls = signal_during(patch, target, name, number)
        with pytest.raises(Interrupted):
            train(path, "dice", fold="all", export=lambda *arguments: write_mark(*arguments))
        assert len(calls) == number
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert open_run(path).trained_folds() == [1]
    assert not (path / "fold_02").exists() and not list(path.glob(f"{FOLDER}/*"))
    # One of the four shows that the other folds follow. The same code trains them.
    folds = [1, 2, 3] if where == "export" else [1]
    train(path, "dice", fold="all" if where == "export" else 1, resume=True)
    assert open_run(path).trained_folds() == folds
    assert (path / "fold_01" / "saved_model" / "saved_model.pb").is_file()


def test_a_signal_while_it_mines(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        signal_during(patch, stages, "mine_negatives")
        with pytest.raises(Interrupted):
            train(tmp_path / "run", "dice-mining")
    content = json.loads((tmp_path / "run" / "fold_01" / "stages.json").read_text())
    assert [stage["done"] for stage in content["stages"]] == [True, True, False]
    assert not (tmp_path / "run" / "fold_01" / "environment.json").exists(), "the next stage has not begun"


class KilledError(BaseException):
    """In place of SIGKILL: nothing in the package catches it."""


def kill_at(monkeypatch, function):
    def killed(*arguments):
        raise KilledError

    monkeypatch.setattr(stages, function, killed)


def test_interrupted_in_every_stage_and_between_them_the_result_is_the_same(tmp_path, trained, monkeypatch):
    path = tmp_path / "run"
    # Steps, counted anew after each start: 2 epochs of 2 or 3 batches in each stage.
    for how, expected, done in (
        (2, "pretrain", None),
        (5, "fold_01/mining_model", [True, False, False, False]),
        ("mine_negatives", None, [True, True, False, False]),
        ("save_mined", None, [True, True, False, False]),
        ("load_mined", None, [True, True, True, False]),
        (3, "fold_01", [True, True, True, False]),
    ):
        with monkeypatch.context() as patch:
            stop_at_step(patch, how) if isinstance(how, int) else kill_at(patch, how)
            with pytest.raises(Interrupted if isinstance(how, int) else KilledError):
                train(path, resume=True)
        states = [str(state.parent.relative_to(path)) for state in path.rglob("state.npz")]
        assert states == ([expected] if expected else []), how
        assert not any((path / FOLDER).iterdir()), "the lock is given back"
        if done is not None:
            content = json.loads((path / "fold_01" / "stages.json").read_text())
            assert [stage["done"] for stage in content["stages"]] == done
            with pytest.raises(
                RunError,
                match="fold_01: has results already: continue with `doubleunet-bs train --run .*/run --resume`",
            ):
                train(path)
    [fold_path] = train(path, resume=True)
    assert_same(result(fold_path), result(trained / "fold_01"))
    # Once more touches nothing.
    before = (fold_path / "best.weights.h5").stat().st_mtime_ns
    assert train(path, resume=True) == [fold_path]
    assert (fold_path / "best.weights.h5").stat().st_mtime_ns == before


@pytest.fixture
def copied(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def test_a_mining_model_of_another_fold_is_refused(copied):
    """Fold 1 tests what fold 3's model was trained on."""
    shutil.rmtree(copied / "fold_01")
    (copied / "fold_01").mkdir()
    shutil.copytree(copied / "fold_03" / "mining_model", copied / "fold_01" / "mining_model")
    with pytest.raises(RunError, match="mining_model: made from another fold than this fold needs"):
        train(copied, resume=True)
    # Also where the number was changed by hand.
    environment = copied / "fold_01" / "mining_model" / "environment.json"
    content = json.loads(environment.read_text())
    environment.write_text(json.dumps({**content, "fold": 1}))
    with pytest.raises(RunError, match="mining_model: made from another trained_on than this fold needs"):
        train(copied, resume=True)
    with pytest.raises(RunError, match="mining_model: made from another trained_on than this fold needs"):
        fold_stages(open_run(copied), 1).mine()


def test_labels_mined_by_another_model_are_refused(copied):
    shutil.copy(copied / "fold_03" / "mining_model" / "best.weights.h5", copied / "fold_01" / "mining_model")
    (copied / "fold_01" / "model.keras").unlink()
    with pytest.raises(RunError, match="mined by another model"):
        train(copied, resume=True)


def test_folds_of_one_run_share_one_pretraining(copied):
    shutil.copy(copied / "fold_01" / "best.weights.h5", copied / "pretrain" / "best.weights.h5")
    with pytest.raises(RunError, match="fold_01: started from another pre-training"):
        train(copied, fold=2)
    assert not (copied / "fold_02").exists()
    (copied / "pretrain" / "model.keras").unlink()
    with pytest.raises(RunError, match="pretrain: the pre-training is not finished"):
        fold_stages(open_run(copied), 1)


@pytest.mark.parametrize("fold", [1, "all"])
def test_what_a_kill_left_goes_when_the_lock_is_held(copied, fold):
    folders = [copied / "fold_01" / f".{name}-abc" for name in ("saved_model", "mined_negatives")]
    for finished in (True, False):
        for folder in folders:
            (folder / "new").mkdir(parents=True)
        if not finished:
            shutil.rmtree(copied / "fold_01" / "saved_model")
        # Fold 2 has not begun, and is somebody else's.
        with locked(copied, "fold_02"):
            train(copied, fold=fold, resume=True)
        assert not any(folder.exists() for folder in folders)
        assert (copied / "fold_01" / "saved_model" / "saved_model.pb").is_file()


@pytest.mark.parametrize(
    ("target", "name", "where"),
    [
        (trainer_module.Trainer, "_fit", "pretrain"),
        (stages, "mine_negatives", "fold_01"),
        (sys.modules[__name__], "write_mark", "fold_01"),
    ],
)
def test_every_stage_says_what_to_do_when_memory_runs_out(tmp_path, trained, monkeypatch, target, name, where):
    def exhausted(*arguments):
        raise tensorflow.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    path = tmp_path / "run"
    if where == "fold_01":
        shutil.copytree(trained, path)
        shutil.rmtree(path / "fold_01" / "saved_model")
        if name == "mine_negatives":
            shutil.rmtree(path / "fold_01" / "mined_negatives")
            (path / "fold_01" / "model.keras").unlink()
    monkeypatch.setattr(target, name, exhausted)
    with pytest.raises(RunError, match=f"{where}: out of memory with a batch of 4: .*--batch-size"):
        train(path, resume=True, export=lambda *arguments: write_mark(*arguments))
    assert not any((path / FOLDER).iterdir())


def test_a_full_disk_is_not_taken_for_a_full_memory(tmp_path):
    """TensorBoard's file on a full disk."""
    text = "events.out.tfevents; No space left on device\nFailed to flush 1 events"
    said = pytest.raises(OSError, match=r"^\[Errno 28\] No space left on device: '.*fold_01'$")
    with said, run_training._advice_on_memory(None, tmp_path / "fold_01", None):
        raise tensorflow.errors.ResourceExhaustedError(None, None, text)


def test_augmentation_shows_fourteen_variants_in_an_epoch(tmp_path, monkeypatch):
    steps, seen = Steps.train, []

    def counted(*arguments):
        seen.append(None)
        return steps(*arguments)

    monkeypatch.setattr(Steps, "train", counted)
    [path] = train(tmp_path / "run", "focal-tversky-otsu", epochs=1, brightness_levels=7, flip="merged")
    trained_on = len(json.loads((path / "environment.json").read_text())["trained_on"])
    assert len(seen) == -(-14 * trained_on // 4)


def test_augmentation_is_for_the_training_scans_of_the_folds(trained):
    row = "focal-tversky-otsu-transfer-augmented"
    for changes, expected in (({}, None), ({"pretrain_augmentation": True}, 14)):
        run = dataclasses.replace(open_run(trained), experiment=paper_experiment(row, **{**SETTINGS, **changes}))
        augmentation = Trainer(stages.pretraining(run, PROSTATE), open_replicas("cpu")).augmentation
        assert (augmentation and augmentation.variants) == expected
        assert fold_stages(run, 2).final().augmentation.variants == 14
