"""TensorFlow and OpenVINO read the same SavedModel and say the same."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from synthetic_shards import SyntheticShards

from doubleunet_bs import tensorflow_setup
from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.inference import Predictor, engines, predictor
from doubleunet_bs.inference.engines import choose_local, has_openvino
from doubleunet_bs.inference.model_folder import find_model
from doubleunet_bs.inference.predictor import open_engine
from doubleunet_bs.tensorflow_setup import bfloat16_instruction

needs_openvino = pytest.mark.skipif(
    not has_openvino(), reason="OpenVINO is not installed: pip install -e '.[openvino]'"
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tensorflow):
    """A network trained for some seconds on square lesions of 32 x 32 images, exported, and images it has not seen."""
    import keras
    from intensity_run import description

    from doubleunet_bs.network import double_unet
    from doubleunet_bs.network.losses import DiceLoss
    from doubleunet_bs.network.metrics import network_input
    from doubleunet_bs.serving.export import write_saved_model

    shards = SyntheticShards(scans=4)
    keras.utils.set_random_seed(1)
    # Network 2's decoder alone is trained, which is enough for these images. It is compiled alone as well, which saves
    # most of the time. With momentum 0 the moving averages are those of these images.
    model = double_unet((32, 32, 3), head_bias=np.log([0.3, 0.65, 0.05]), bn_momentum=0.0)
    concatenated = [model.get_layer(f"decoder2_level{level}_concat").input[1:] for level in (1, 2, 3, 4)]
    before = [model.get_layer("decoder2_level1_up").input, *(skip for skips in concatenated for skip in skips)]
    maps = keras.Model(model.input, before)(network_input(shards._grey), training=True)
    decoder = keras.Model(before, model.get_layer("output2").output)
    labels = tensorflow.constant(shards._labels)
    loss, optimizer = DiceLoss(), keras.optimizers.Adam(3e-3)
    variables = decoder.trainable_variables
    assert all(one.path.startswith(("decoder2", "output2")) for one in variables)

    def step():
        with tensorflow.GradientTape() as tape:
            value = loss(labels, decoder(maps, training=True))
        optimizer.apply(tape.gradient(value, [one.value for one in variables]), variables)

    step = tensorflow.function(step, autograph=False)
    for _ in range(20):
        step()
    folder = tmp_path_factory.mktemp("trained")
    write_saved_model(folder, model, description((32, 32)))
    unseen = SyntheticShards(scans=40, seed=5)
    return folder, unseen._grey, unseen._labels == 2


@pytest.mark.slow
@needs_openvino
def test_engines_agree_on_trained_weights(trained, record_property):
    """In float32 on 99.9 % of the metastatic pixels. bfloat16 is measured, and must find the lesions as well."""
    folder, grey, lesions = trained
    masks = {}
    for engine in ("tensorflow", "openvino"):
        for precision in ("float32", "auto"):
            one = open_engine(find_model(folder), engine, precision)
            if one.name in masks:  # "auto" is float32 here.
                continue
            probability, mask = one(grey)
            assert (probability.shape, probability.dtype) == (grey.shape, np.float32)
            assert (mask.shape, mask.dtype) == (grey.shape, np.uint8)
            assert np.isfinite(probability).all()
            masks[one.name] = mask == 1
    names = list(masks)
    first = masks[names[0]]
    dice = {name: 2 * (mask & lesions).sum() / (mask.sum() + lesions.sum()) for name, mask in masks.items()}
    assert dice[names[0]] > 0.8
    agreement = {name: (mask & first).sum() / (mask | first).sum() for name, mask in masks.items()}
    for name in names[1:]:
        same = f"same metastatic pixels as {names[0]} {agreement[name]:.2%}"
        record_property("note", f"{name}: {same}, Dice {dice[name]:.2%}")
    for name in names:
        if "float32" in name:
            assert agreement[name] >= 0.999
        assert dice[name] == pytest.approx(dice[names[0]], abs=0.01)


@needs_openvino
def test_openvino_reports_to_nobody(tmp_path):
    """It would call Google Analytics from a hospital's network, and write into the home folder."""
    code = "import doubleunet_bs.inference.engine_openvino, sys; sys.exit('openvino_telemetry.main' in sys.modules)"
    environment = {**os.environ, "HOME": str(tmp_path), "CI": ""}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "precision", "onednn"),
    [
        ("avx2", "auto", False),
        ("avx2 avx512f", "auto", True),
        ("avx2 avx512f avx512_bf16", "auto", True),
        ("avx2 avx512f avx512_bf16", "float32", True),
        ("", "auto", True),  # nothing is known of the processor
    ],
)
def test_tensorflow_predicts_without_onednn_on_processors_with_avx2_alone(
    trained_run, monkeypatch, flags, precision, onednn
):
    monkeypatch.setattr(tensorflow_setup, "processor_flags", lambda: frozenset(flags.split()))
    asked = []
    monkeypatch.setattr(predictor, "import_tensorflow", lambda onednn: asked.append(onednn))
    open_engine(find_model(trained_run / "fold_01"), "tensorflow", precision)
    assert asked == [onednn]


@pytest.mark.slow
@needs_openvino
def test_split_convolutions_compute_the_same(trained):
    """Eight of them: four levels of two decoders."""
    from doubleunet_bs.inference.engine_openvino import CORE, split_convolutions

    folder, grey, _ = trained
    probabilities = []
    for split in (False, True):
        model = CORE.read_model(folder)
        if split:
            assert split_convolutions(model) == 8
            assert split_convolutions(model) == 0
        compiled = CORE.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        probabilities.append(compiled({"image": grey})["metastatic_probability"].copy())
    assert np.ptp(probabilities[0]) > 0.5
    np.testing.assert_allclose(probabilities[1], probabilities[0], atol=1e-4)


@pytest.mark.slow
@needs_openvino
def test_a_model_that_is_open_stays_what_it_was(trained, tmp_path):
    """Although another one is copied over its files before the first image."""
    from doubleunet_bs.inference.engine_openvino import OpenVinoEngine

    folder, grey, _ = trained
    expected, _ = OpenVinoEngine(folder, False)(grey)
    shutil.copytree(folder, tmp_path / "copy")
    one = OpenVinoEngine(tmp_path / "copy", False)
    [weights] = (tmp_path / "copy" / "variables").glob("*.data-*")
    with open(weights, "r+b") as file:
        file.write(bytes(weights.stat().st_size))
    assert np.array_equal(one(grey)[0], expected)


def test_any_number_of_images_from_any_thread(trained_run):
    from concurrent.futures import ThreadPoolExecutor

    images = np.random.default_rng(1).integers(0, 256, (12, 160, 128), dtype=np.uint8)
    for engine in ("tensorflow", "openvino") if has_openvino() else ("tensorflow",):
        one = open_engine(find_model(trained_run / "fold_01"), engine)
        pieces = [images[:1], images[1:3], images[3:6], images[6:], images[:0]]
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(one, pieces * 3))
        for piece, (probability, mask) in zip(pieces * 3, answers, strict=True):
            assert np.array_equal(mask == 1, piece > 150)
            assert np.array_equal(probability > 0.5, piece > 150)
        with pytest.raises(RunError, match="160 x 128 pixels, not 128 x 160"):
            one(images.transpose(0, 2, 1))


def test_choice(monkeypatch, tmp_path):
    monkeypatch.setattr(tensorflow_setup.may_have_gpus, "__defaults__", (tmp_path,))
    monkeypatch.setattr(engines, "has_openvino", lambda: False)
    assert choose_local("auto") == "tensorflow"
    with pytest.raises(SettingsError, match="not installed: pip install"):
        engines.check_choice("openvino", "auto")
    monkeypatch.setattr(engines, "has_openvino", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert choose_local("auto") == "openvino"
    # An AMD GPU, which this TensorFlow cannot use.
    (tmp_path / "kfd").touch()
    assert choose_local("auto") == "openvino"
    # The only GPU of a container may have another number.
    (tmp_path / "nvidia3").touch()
    assert choose_local("auto") == "tensorflow"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert choose_local("auto") == "openvino"
    assert choose_local("openvino") == "openvino"
    with pytest.raises(SettingsError, match="precision 'half'"):
        engines.check_choice("auto", "half")


def test_bfloat16_is_not_left_to_the_environment(trained_run, monkeypatch):
    """A user's own value would change masks silently; in float32 nothing is read from it."""
    import tensorflow as tf

    from doubleunet_bs.inference.engine_tensorflow import TensorFlowEngine

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("with a GPU no engine computes in bfloat16")
    model, name = trained_run / "fold_01" / "saved_model", "TF_AUTO_MIXED_PRECISION_GRAPH_REWRITE_DENYLIST_ADD"
    monkeypatch.setenv(name, "MatMul")
    with pytest.raises(SettingsError, match=f"{name} is set to 'MatMul' in the environment: unset it, or choose"):
        TensorFlowEngine(model, bfloat16=True)
    assert "float32" in TensorFlowEngine(model, bfloat16=False).name


def test_the_choice_is_said(trained_run):
    for precision in ("auto", "float32"):
        predictor = Predictor(trained_run / "fold_01", precision=precision)
        assert predictor.engine.startswith(choose_local("auto"))
        words = "bfloat16" if precision == "auto" and bfloat16_instruction() else "float32"
        assert words in predictor.engine or "GPU" in predictor.engine


def test_an_export_of_other_weights_is_not_used(trained_run, tmp_path):
    import shutil

    run = shutil.copytree(trained_run, tmp_path / "run")
    with open(run / "fold_01" / "best.weights.h5", "ab") as file:
        file.write(b"further")
    with pytest.raises(RunError, match="no saved_model of its present weights: export it"):
        Predictor(run / "fold_01")


def run_alone(script, model):
    """A script in a process of its own, which must end well."""
    done = subprocess.run([sys.executable, "-c", script, model], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# For sys.argv: model. Prepares nothing: opens the engine, computes once, and says what was imported and connected to.
ALONE = """
import sys

connections = []
sys.addaudithook(lambda event, args: connections.append(args) if event == "socket.connect" else None)
import numpy as np
from doubleunet_bs.inference import Predictor

predictor = Predictor(sys.argv[1], engine="openvino")
predictor._segmenter(np.zeros((1, *predictor.description.image_shape), np.uint8))
assert not connections, connections
assert not {"tensorflow", "keras"} & set(sys.modules)
"""


@pytest.mark.slow
@needs_openvino
def test_openvino_needs_neither_tensorflow_nor_the_network(trained_run):
    run_alone(ALONE, trained_run / "fold_01" / "saved_model")


# For sys.argv: model. Two engines, the first one gone before the second, then a signal.
SIGNALLED = """
import faulthandler, gc, os, signal, sys
from pathlib import Path
import numpy as np
from doubleunet_bs.inference.model_folder import find_model
from doubleunet_bs.inference.predictor import open_engine

faulthandler.enable()
engines = [open_engine(find_model(Path(sys.argv[1])), "openvino") for _ in range(2)]
for engine in engines:
    engine(np.zeros((1, *engine.image_shape), np.uint8))
del engine
while engines:
    del engines[0]
    gc.collect()
seen = []
signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
os.kill(os.getpid(), signal.SIGTERM)
assert seen == [signal.SIGTERM]
"""


@pytest.mark.slow
@needs_openvino
def test_a_signal_is_survived_when_the_engines_are_gone(trained_run):
    run_alone(SIGNALLED, trained_run / "fold_01" / "saved_model")


@needs_openvino
def test_a_damaged_model_is_one_line(trained_run, tmp_path):
    import shutil

    damaged = shutil.copytree(trained_run / "fold_01" / "saved_model", tmp_path / "damaged")
    (damaged / "saved_model.pb").write_bytes(b"\xff" * 100)
    for engine in ("tensorflow", "openvino"):
        with pytest.raises(RunError, match="damaged, or changed since its export") as caught:
            Predictor(damaged, engine=engine)
        assert "\n" not in str(caught.value)
