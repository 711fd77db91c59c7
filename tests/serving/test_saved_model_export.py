"""What is exported runs without this package and says what the live network says."""

import ctypes
import errno
import getpass
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from intensity_run import LEVEL, SETTINGS, SHAPE, description, intensity_model

from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.files import read_json, write_json
from doubleunet_bs.inference.model_description import INTENDED_USE, describe_saved_model
from doubleunet_bs.inference.model_folder import find_model, open_fold
from doubleunet_bs.inference.predictor import open_engine
from doubleunet_bs.inference.saved_model_check import check_files, check_graph, hash_files
from doubleunet_bs.preparation import PreparationSettings, prepare_scan
from doubleunet_bs.runs.run_folder import open_run


def test_any_number_of_images_of_one_size(trained_run):
    segmenter = open_engine(find_model(trained_run / "fold_01"), "tensorflow", "float32")
    images = np.random.default_rng(1).integers(0, 256, (3, *segmenter.image_shape), dtype=np.uint8)
    for number in (1, 2, 3):
        assert np.array_equal(segmenter(images[:number])[1] == 1, images[:number] > LEVEL)
    with pytest.raises(RunError, match="160 x 128 pixels, not 128 x 160"):
        segmenter(images.transpose(0, 2, 1))


def test_the_network_passes_the_check(exported_network):
    check_files(exported_network)
    check_graph(exported_network / "saved_model.pb")


def test_weights_are_in_it_once_for_all_endpoints(exported_network):
    size = sum(file.stat().st_size for file in (exported_network / "variables").iterdir())
    assert 29_299_430 * 4 < size < 1.1 * 29_299_430 * 4


def test_no_name_or_path_of_the_computer_is_in_it(exported_network, trained_run):
    secrets = {str(Path(__file__).parents[2]), str(Path.home()), sys.prefix, str(trained_run), "site-packages", ".py"}
    if len(getpass.getuser()) > 3:
        secrets.add(getpass.getuser())
    for folder in (exported_network, trained_run / "fold_01" / "saved_model"):
        for file in folder.rglob("*"):
            # The weights are random bytes, in which three characters occur by chance.
            if file.is_file() and not file.name.startswith("variables.data"):
                content = file.read_bytes()
                assert not [secret for secret in secrets if secret.encode() in content], file


@pytest.mark.parametrize("classes", [1, 3])
def test_mask_and_probability_of_both_networks(classes, tmp_path, tensorflow):
    from doubleunet_bs.serving.export import write_saved_model

    write_saved_model(tmp_path, intensity_model(*SHAPE, classes=classes), description(classes=classes))
    grey = np.arange(256, dtype=np.uint8).repeat(SHAPE[0] * SHAPE[1] // 256).reshape(1, *SHAPE)
    probability, mask = open_engine(find_model(tmp_path), "tensorflow", "float32")(grey)
    assert np.array_equal(mask == 1, grey > LEVEL)
    assert np.array_equal(probability > 0.5, grey > LEVEL)
    assert probability.min() >= 0
    assert probability.max() <= 1


def test_export_of_a_fold(trained_run):
    path = trained_run / "fold_01" / "saved_model"
    content = json.loads((path / "assets.extra" / "model.json").read_text())
    experiment = json.loads((trained_run / "experiment.json").read_text())
    assert content.pop("files_sha256") == hash_files(path)
    assert describe_saved_model(path).to_json() == content
    assert content["intended_use"] == INTENDED_USE
    assert "not a medical device" in INTENDED_USE
    assert content["experiment"] == experiment["experiment"]
    assert content["preparation"] == experiment["data"]["preparation"] == SETTINGS.to_json()
    assert content["data_fingerprint"] == experiment["data"]["fingerprint"]
    assert (content["image_shape"], content["fold"]) == ([160, 128], 1)
    assert (content["best_epoch"], content["validation_f1"]) == (3, 0.6)
    assert content["class_names"] == ["air", "non-metastatic", "metastatic"]
    from doubleunet_bs.preparation.shards import file_sha256

    assert content["weights_sha256"] == file_sha256(trained_run / "fold_01" / "best.weights.h5")
    assert [file.name for file in trained_run.joinpath("fold_01").glob(".*")] == []


def test_a_failed_export_leaves_the_old_one(trained_run, tmp_path, monkeypatch):
    from doubleunet_bs.serving import export

    def fail(folder, model, description):
        (folder / "saved_model.pb").write_bytes(b"half")
        raise OSError("disk full")

    run = shutil.copytree(trained_run, tmp_path / "run")
    before = sorted(file.name for file in (run / "fold_01").iterdir())
    old = (run / "fold_01" / "saved_model" / "saved_model.pb").read_bytes()
    monkeypatch.setattr(export, "write_saved_model", fail)
    with pytest.raises(OSError, match="disk full"):
        export.export_fold(open_run(run), 1)
    assert (run / "fold_01" / "saved_model" / "saved_model.pb").read_bytes() == old
    assert sorted(file.name for file in (run / "fold_01").iterdir()) == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_not_taken_for_a_full_memory(trained_run, tensorflow, monkeypatch, number):
    from doubleunet_bs.serving.export import export_fold

    def full(*arguments, **options):
        raise tensorflow.errors.ResourceExhaustedError(None, None, f"variables; {os.strerror(number)} [Op:SaveV2]")

    monkeypatch.setattr(tensorflow.saved_model, "save", full)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        export_fold(open_run(trained_run), 1)
    assert caught.value.errno == number


def test_folds_that_cannot_be_exported(trained_run):
    from doubleunet_bs.serving.export import export_fold

    with pytest.raises(RunError, match="fold_02: not a trained fold"):
        export_fold(open_run(trained_run), 2)
    with pytest.raises(SettingsError, match="counted from 1"):
        export_fold(open_run(trained_run), 0)


@pytest.mark.parametrize(
    ("name", "value"), [("cohorts", {}), ("cohorts", None), ("folds_sha256", []), ("precision", None)]
)
def test_a_damaged_environment_is_refused(trained_run, tmp_path, name, value):
    run = shutil.copytree(trained_run, tmp_path / "run", ignore=shutil.ignore_patterns("saved_model"))
    environment = run / "fold_01" / "environment.json"
    write_json(environment, {**read_json(environment), name: value})
    with pytest.raises(RunError, match="not a training environment: train the fold again"):
        open_fold(open_run(run), 1)


def test_path_of_encoder_weights_stays_at_home(trained_run, tmp_path):
    run = shutil.copytree(trained_run, tmp_path / "run", ignore=shutil.ignore_patterns("saved_model"))
    content = read_json(run / "experiment.json")
    content["experiment"]["encoder_weights"] = "/home/somebody/vgg19.h5"
    write_json(run / "experiment.json", content)
    assert open_fold(open_run(run), 1).describe().experiment["encoder_weights"] == "vgg19.h5"


# Every way in, in a process where this package cannot be imported. Written for sys.argv: model, counts, images,
# answers.
STRANGER = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "doubleunet_bs":
            raise ImportError("this package is not here")

sys.meta_path.insert(0, Blocked())
import functools
import keras
import numpy as np
import tensorflow as tf

model, counts, images, answers = sys.argv[1:]
inputs = {"raw_counts": {"counts": np.load(counts)}, "serving_default": {"image": np.load(images)}}
# Read once, by Keras as well.
tf.saved_model.load = functools.cache(tf.saved_model.load)
loaded = tf.saved_model.load(model)
answer = {}
for endpoint, feed in inputs.items():
    ((name, array),) = feed.items()
    answer["load", endpoint] = loaded.signatures[endpoint](**{name: tf.constant(array)})
    answer["keras", endpoint] = keras.layers.TFSMLayer(model, call_endpoint=endpoint)(array)
with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
    meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], model)
    for endpoint, feed in inputs.items():
        signature = meta.signature_def[endpoint]
        fetches = {name: tensor.name for name, tensor in signature.outputs.items()}
        feeds = {signature.inputs[name].name: array for name, array in feed.items()}
        answer["session", endpoint] = session.run(fetches, feeds)
    operations = {node.op for node in meta.graph_def.node}
    operations |= {node.op for function in meta.graph_def.library.function for node in function.node_def}
assert not [name for name in operations if "PyFunc" in name], operations
assert "doubleunet_bs" not in sys.modules
np.savez(answers, **{"/".join((*way, name)): np.asarray(value) for way, part in answer.items() for name, value in
part.items()})
"""


@pytest.fixture(scope="module")
def expected(live_network, scan, tmp_path_factory):
    """Counts of a phantom, its prepared image, and masks and probabilities by NumPy and the live network."""
    from doubleunet_bs.inference.keras_model import Segmenter

    prepared = prepare_scan(scan, settings=PreparationSettings(bin=4))
    probability, mask = Segmenter(live_network, (160, 128))(prepared.grey[None])
    plain = {"metastatic_probability": probability, "mask": mask}
    raw = {name: np.stack(list(prepared.map_back(image[0]).values()))[None] for name, image in plain.items()}
    assert 0.01 < raw["mask"].mean() < 0.5
    folder = tmp_path_factory.mktemp("counts")
    np.save(folder / "counts.npy", np.stack([scan.anterior, scan.posterior])[None])
    np.save(folder / "images.npy", prepared.grey[None])
    return folder, {"raw_counts": raw, "serving_default": plain}, [prepared.gains]


@pytest.mark.slow
def test_a_stranger_gets_the_masks_of_the_live_network(exported_network, expected):
    folder, answers, gains = expected
    arguments = [exported_network, folder / "counts.npy", folder / "images.npy", folder / "answers.npz"]
    done = subprocess.run([sys.executable, "-c", STRANGER, *arguments], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    found = np.load(folder / "answers.npz")
    for way in ("load", "keras", "session"):
        for endpoint, answer in answers.items():
            assert np.array_equal(found[f"{way}/{endpoint}/mask"], answer["mask"]), (way, endpoint)
            name = "metastatic_probability"
            assert np.allclose(found[f"{way}/{endpoint}/{name}"], answer[name], rtol=0, atol=1e-5), (way, endpoint)
        assert found[f"{way}/raw_counts/status"].tolist() == [0]
        assert [tuple(pair) for pair in found[f"{way}/raw_counts/gains"].tolist()] == gains


# TensorFlow's C library alone: no Python of TensorFlow, Keras or this package. Written for sys.argv: folder of the
# libraries, model, counts, name of the input, name and index of the output "mask", file for the answer.
C_PROGRAM = """
import ctypes, sys
import numpy as np

libraries, model, counts, feed, fetch, index, answer = sys.argv[1:]
ctypes.CDLL(libraries + "/libtensorflow_framework.so.2", ctypes.RTLD_GLOBAL)
tf = ctypes.CDLL(libraries + "/libtensorflow_cc.so.2", ctypes.RTLD_GLOBAL)
pointer, size = ctypes.c_void_p, ctypes.c_size_t
for name in ("NewStatus", "NewGraph", "NewSessionOptions", "LoadSessionFromSavedModel", "GraphOperationByName",
             "AllocateTensor", "TensorData"):
    getattr(tf, "TF_" + name).restype = pointer
tf.TF_Message.restype, tf.TF_TensorByteSize.restype, tf.TF_Dim.restype = ctypes.c_char_p, size, ctypes.c_int64

class Output(ctypes.Structure):
    _fields_ = [("operation", pointer), ("index", ctypes.c_int)]

status, graph, options = map(pointer, (tf.TF_NewStatus(), tf.TF_NewGraph(), tf.TF_NewSessionOptions()))
def check():
    assert tf.TF_GetCode(status) == 0, tf.TF_Message(status)
tags = (ctypes.c_char_p * 1)(b"serve")
session = pointer(tf.TF_LoadSessionFromSavedModel(options, None, model.encode(), tags, 1, graph, None, status))
check()
def output(name, index):
    operation = tf.TF_GraphOperationByName(graph, name.encode())
    assert operation, name
    return Output(operation, index)
counts = np.load(counts)
shape = (ctypes.c_int64 * 4)(*counts.shape)
UINT16 = 17
tensor = pointer(tf.TF_AllocateTensor(UINT16, shape, 4, size(counts.nbytes)))
ctypes.memmove(tf.TF_TensorData(tensor), counts.ctypes.data, counts.nbytes)
feeds, fetches = (Output * 1)(output(feed, 0)), (Output * 1)(output(fetch, int(index)))
values, results = (pointer * 1)(tensor), (pointer * 1)()
tf.TF_SessionRun(session, None, feeds, values, 1, fetches, results, 1, None, 0, None, status)
check()
result = pointer(results[0])
shape = [tf.TF_Dim(result, place) for place in range(tf.TF_NumDims(result))]
content = ctypes.string_at(tf.TF_TensorData(result), tf.TF_TensorByteSize(result))
assert not {"tensorflow", "keras", "doubleunet_bs"} & set(sys.modules)
np.save(answer, np.frombuffer(content, np.uint8).reshape(shape))
"""


@pytest.mark.slow
def test_the_c_library_runs_it(exported_network, expected, tensorflow):
    libraries = Path(importlib.util.find_spec("tensorflow").submodule_search_locations[0])
    if not (libraries / "libtensorflow_cc.so.2").exists() or not hasattr(ctypes, "RTLD_GLOBAL"):
        pytest.skip("this TensorFlow brings no libtensorflow_cc.so.2")
    folder, answers, _ = expected
    with tensorflow.Graph().as_default(), tensorflow.compat.v1.Session() as session:
        meta = tensorflow.compat.v1.saved_model.loader.load(session, ["serve"], str(exported_network))
    signature = meta.signature_def["raw_counts"]
    feed = signature.inputs["counts"].name.partition(":")[0]
    fetch, _, index = signature.outputs["mask"].name.partition(":")
    arguments = [libraries, exported_network, folder / "counts.npy", feed, fetch, index, folder / "mask.npy"]
    done = subprocess.run([sys.executable, "-c", C_PROGRAM, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(folder / "mask.npy"), answers["raw_counts"]["mask"])


@pytest.mark.slow
def test_scan_for_dangerous_operations_is_clean(exported_network, capfd):
    """As `saved_model_cli scan` does it, without another start of TensorFlow."""
    from tensorflow.python.tools import saved_model_cli, saved_model_utils

    graph = saved_model_utils.get_meta_graph_def(str(exported_network), "serve")
    saved_model_cli.scan_meta_graph_def(graph, saved_model_cli._OP_DENYLIST)
    said = "".join(capfd.readouterr())
    assert "does not contain the default denylisted ops" in said


def test_the_description_is_an_endpoint_and_a_file(exported_network, tensorflow):
    loaded = tensorflow.saved_model.load(str(exported_network))
    texts = loaded.signatures["model_description"](query=np.zeros(2, np.uint8))["description"].numpy()
    content = json.loads((exported_network / "assets.extra" / "model.json").read_text())
    assert content.pop("files_sha256") == hash_files(exported_network)
    assert [json.loads(text) for text in texts] == [content] * 2
    assert set(content["endpoints"]) == {"serving_default", "raw_counts", "model_description"} == set(loaded.signatures)
    for name, endpoint in content["endpoints"].items():
        signature = loaded.signatures[name]
        for part, tensors in (
            ("inputs", signature.structured_input_signature[1]),
            ("outputs", signature.structured_outputs),
        ):
            assert {key: (one.dtype.name, list(one.shape)) for key, one in tensors.items()} == {
                key: (one["dtype"], one["shape"]) for key, one in endpoint[part].items()
            }
    assert content["endpoints"]["raw_counts"]["outputs"]["status"]["values"] == {
        "0": "ok",
        "1": "missing-view",
        "2": "no-body",
        "3": "too-dark",
    }
