"""The preparation inside the graph is the preparation in NumPy, to the last bit; what cannot be prepared gets no mask."""

import ctypes
import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from intensity_run import intensity_model
from odd_counts import alter, steps

from doubleunet_bs.errors import ScanError
from doubleunet_bs.inference.endpoints import STATUS_REASONS
from doubleunet_bs.preparation import PreparationSettings, prepare_scan
from doubleunet_bs.scans.bone_scan import BoneScan

VIEWS = ("anterior", "posterior")
SETTINGS = [
    PreparationSettings(bin=1),
    PreparationSettings(bin=1, brightness="per_view"),
    PreparationSettings(bin=2),
    PreparationSettings(bin=4, brightness="per_view"),
]


def scan_of(counts: np.ndarray) -> BoneScan:
    """A scan whose blank views are missing ones, as the endpoint takes them."""
    missing = tuple(view for view, one in zip(VIEWS, counts, strict=True) if not one.any())
    return BoneScan(counts[0], counts[1], None, "case", missing_views=missing)


@pytest.fixture(scope="module")
def bases(scan):
    """Counts to start from: a phantom, a dim one, and two bodies of a few rectangles."""
    from bodies import block, person

    phantom = np.stack([scan.anterior, scan.posterior])
    return [phantom, phantom // 6, np.stack([person(1), person(2)]), np.stack([block(), block(seed=1)])]


@pytest.fixture(scope="module", params=SETTINGS, ids=lambda one: f"bin{one.bin}-{one.brightness}")
def both(request, tensorflow):
    """Settings, both endpoints of a model that sees grey levels above 150, and the preparation alone. As exported, a graph."""
    from doubleunet_bs.inference.keras_model import image_signature, segmentation_function
    from doubleunet_bs.serving.raw_counts import counts_signature, prepare_counts, raw_counts_function

    chosen = request.param
    segment = segmentation_function(intensity_model(*chosen.image_shape))
    raw = tensorflow.function(raw_counts_function(segment, chosen), [counts_signature()], autograph=False)

    @tensorflow.function(input_signature=[counts_signature()], autograph=False)
    def grey_of(counts):
        return prepare_counts(counts, chosen).grey

    def both(counts):
        answer = {name: value.numpy() for name, value in raw(counts).items()}
        return answer | {"grey": grey_of(counts).numpy()}

    both.settings = chosen
    both.plain = tensorflow.function(segment, [image_signature(*chosen.image_shape)], autograph=False)
    return both


def compare(both, counts: np.ndarray) -> str:
    """Hold the endpoint's answer on one scan against NumPy's; returns what became of the scan."""
    answer = {name: value[0] for name, value in both(counts[None]).items()}
    reason = STATUS_REASONS[answer["status"]]
    try:
        prepared = prepare_scan(scan_of(counts), settings=both.settings)
    except ScanError as error:
        assert reason == error.reason
        for name in ("mask", "metastatic_probability", "grey"):
            assert not answer[name].any()
        assert answer["gains"].tolist() == [1, 1]
        return reason
    assert reason == "ok"
    assert np.array_equal(answer["grey"], prepared.grey)
    assert tuple(answer["gains"].tolist()) == prepared.gains
    for view, body in zip(VIEWS, answer["body"].tolist(), strict=True):
        assert body == (list(dataclasses.astuple(prepared.bodies[view])) if view in prepared.bodies else [-1] * 4)
    plain = {name: value.numpy()[0] for name, value in both.plain(prepared.grey[None]).items()}
    for name, image in plain.items():
        for index, (view, expected) in enumerate(prepared.map_back(image).items()):
            if view in prepared.missing_views:
                expected = np.zeros_like(expected)
            assert answer[name].dtype == expected.dtype
            assert np.array_equal(answer[name][index], expected), (name, view)
    return reason


@settings(max_examples=12, deadline=None)
@given(number=st.integers(0, 3), steps=steps)
@example(number=0, steps=[])
@example(number=0, steps=[("blank", 0)])  # one view, then the other
@example(number=0, steps=[("blank", 1)])
@example(number=0, steps=[("blank", 0), ("blank", 1)])
@example(number=0, steps=[("hot", 3)])
@example(number=0, steps=[("brighten", 5)])
@example(number=3, steps=[("up", 7), ("aside", 8)])
def test_graph_and_numpy_agree_to_the_last_bit(both, bases, number, steps):
    compare(both, alter(bases[number], steps))


def test_every_status_is_met(both, bases):
    phantom = bases[0]
    assert compare(both, phantom) == "ok"
    assert compare(both, np.zeros_like(phantom)) == "missing-view"
    assert compare(both, np.full_like(phantom, 3)) == "no-body"
    # A body of which every twelfth pixel of every twelfth row has counts: no gain makes those few bright enough.
    few = np.zeros_like(phantom)
    few[:, 200:800:12, 100:160:12] = 5
    assert compare(both, few) == "too-dark"
    assert compare(both, np.stack([phantom[0], np.full_like(phantom[0], 3)])) == "no-body"


def test_a_bad_scan_does_not_touch_its_batch(both, bases):
    """What is promised: equal masks, statuses, gains and bodies, and probabilities to 1e-5. How a processor rounds may depend
    on the size of the batch."""
    good, blank = bases[0], np.zeros_like(bases[0])
    answer = both(np.stack([blank, good, np.full_like(good, 3), bases[2]]))
    assert [STATUS_REASONS[status] for status in answer["status"]] == ["missing-view", "ok", "no-body", "ok"]
    for place, counts in ((1, good), (3, bases[2])):
        alone = both(counts[None])
        for name, value in alone.items():
            tolerance = 1e-5 if name == "metastatic_probability" else 0
            np.testing.assert_allclose(answer[name][place], value[0], rtol=0, atol=tolerance, err_msg=name)
    assert answer["mask"][1].any()
    assert not answer["mask"][[0, 2]].any()


def test_no_scan_at_all(both):
    answer = both(np.zeros((0, 2, 1024, 256), np.uint16))
    assert {name: value.shape[1:] for name, value in answer.items() if name != "grey"} == {
        "mask": (2, 1024, 256),
        "metastatic_probability": (2, 1024, 256),
        "gains": (2,),
        "body": (2, 4),
        "status": (),
    }
    assert all(len(value) == 0 for value in answer.values())


# Every way in, in a process where this package cannot be imported. Written for sys.argv: model, counts, images, answers.
STRANGER = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "doubleunet_bs":
            raise ImportError("this package is not here")

sys.meta_path.insert(0, Blocked())
import keras
import numpy as np
import tensorflow as tf

model, counts, images, answers = sys.argv[1:]
inputs = {"raw_counts": {"counts": np.load(counts)}, "serving_default": {"image": np.load(images)}}
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


# TensorFlow's C library alone: no Python of TensorFlow, Keras or this package. Written for sys.argv: folder of the libraries,
# model, counts, name of the input, name and index of the output "mask", file for the answer.
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
def test_scan_for_dangerous_operations_is_clean(exported_network):
    command = Path(sys.executable).parent / "saved_model_cli"
    if not command.exists():
        pytest.skip("this TensorFlow brings no saved_model_cli")
    arguments = [command, "scan", "--dir", exported_network, "--tag_set", "serve"]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "does not contain the default denylisted ops" in done.stdout + done.stderr


def test_papers_are_an_endpoint_and_a_file(exported_network, tensorflow):
    loaded = tensorflow.saved_model.load(str(exported_network))
    texts = loaded.signatures["model_description"](query=np.zeros(2, np.uint8))["description"].numpy()
    content = json.loads((exported_network / "assets.extra" / "model.json").read_text())
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
