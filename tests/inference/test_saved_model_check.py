"""A model that reads or writes files, or was changed after its export, is refused before anything of it runs."""

import dataclasses
import shutil
from pathlib import Path

import pytest
from intensity_run import description, intensity_model
from tensorflow.python.framework import op_def_registry

from doubleunet_bs.errors import RunError
from doubleunet_bs.files import read_json, write_json
from doubleunet_bs.inference import Predictor, saved_model_check
from doubleunet_bs.inference.keras_model import mean_of
from doubleunet_bs.inference.saved_model_check import COMPUTING, check_files, check_graph, hash_files
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.serving.export import write_saved_model


@pytest.fixture
def model(trained_run, tmp_path):
    return shutil.copytree(trained_run / "fold_01" / "saved_model", tmp_path / "model")


@pytest.fixture
def no_hashes(model):
    """An export whose description states no hashes."""
    path = model / "assets.extra" / "model.json"
    content = read_json(path)
    del content["files_sha256"]
    write_json(path, content)
    return model


def state_hashes(model):
    path = model / "assets.extra" / "model.json"
    write_json(path, {**read_json(path), "files_sha256": hash_files(model)})


def test_an_export_without_hashes_is_refused(no_hashes):
    with pytest.raises(RunError, match="damaged, or changed since its export: copy or export the model again"):
        check_files(no_hashes)


def test_exports_of_every_kind_pass(tmp_path, tensorflow):
    """`write_saved_model` checks what it writes; for the real network see `test_saved_model_export`."""
    for number, (bin, brightness, classes) in enumerate(
        ((1, "per_scan", 3), (2, "per_view", 3), (4, "per_view", 1), (4, "per_scan", 3))
    ):
        settings = PreparationSettings(bin=bin, brightness=brightness)
        model = dataclasses.replace(description(settings.image_shape, classes), preparation=settings)
        (tmp_path / str(number)).mkdir()
        network = intensity_model(*settings.image_shape, classes=classes)
        write_saved_model(tmp_path / str(number), mean_of([network, network]) if number == 3 else network, model)
        check_saved_model(tmp_path / str(number))


def test_what_is_allowed_has_no_effects():
    registered = {name: op_def_registry.get(name) for name in COMPUTING}
    assert None not in registered.values()
    # Variables of the model, what feeds it, and calls of functions, whose content is checked.
    stateful = {name for name, operation in registered.items() if operation.is_stateful}
    assert stateful == {"VarHandleOp", "ReadVariableOp", "StatefulPartitionedCall"}


def check_saved_model(folder):
    check_files(folder)
    check_graph(folder / "saved_model.pb")


def read(tf):
    return tf.strings.length(tf.io.read_file("/etc/hostname"))


def write(tf):
    with tf.control_dependencies([tf.io.write_file("written", "content")]):
        return tf.constant(0)


def save(tf):
    with tf.control_dependencies(
        [tf.raw_ops.SaveV2(prefix="written", tensor_names=["x"], shape_and_slices=[""], tensors=[tf.constant(1)])]
    ):
        return tf.constant(0)


def restore(tf):
    return tf.raw_ops.RestoreV2(prefix="p", tensor_names=["x"], shape_and_slices=[""], dtypes=[tf.int32])[0]


def in_a_branch(tf):
    return tf.cond(tf.random.uniform(()) > 0.5, lambda: read(tf), lambda: tf.constant(0))


COMPUTATIONS = {
    "ReadFile": read,
    "WriteFile": write,
    "SaveV2": save,
    "RestoreV2": restore,
    "MatchingFiles": lambda tf: tf.size(tf.io.matching_files("/home/*")),
    "EagerPyFunc": lambda tf: tf.py_function(lambda: 1, [], tf.int32),
    "If": in_a_branch,
    "PrintV2": lambda tf: [tf.print("x", output_stream="file://written"), 0][1],
    "LookupTable": lambda tf: tf.size(tf.data.TextLineDataset("/etc/passwd").get_single_element()),
}


def write_evil(tf, folder: Path, compute) -> None:
    """A SavedModel like ours whose `serving_default` also does what `compute` does."""

    class Model(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 160, 128), tf.uint8, name="image")], autograph=False)
        def serve(self, image):
            probability = tf.cast(image, tf.float32) / 255 + 0 * tf.cast(compute(tf), tf.float32)
            return {"metastatic_probability": probability, "mask": tf.cast(image > 150, tf.uint8)}

    module = Model()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})


@pytest.mark.parametrize("name", COMPUTATIONS)
def test_operations_on_files_are_refused(name, tmp_path, tensorflow):
    write_evil(tensorflow, tmp_path / "evil", COMPUTATIONS[name])
    with pytest.raises(RunError, match="is not one of this package's exports: do not use this model"):
        check_graph(tmp_path / "evil" / "saved_model.pb")


def test_a_harmless_graph_of_the_same_kind_passes(tmp_path, tensorflow):
    write_evil(tensorflow, tmp_path / "model", lambda tf: tf.constant(0))
    check_graph(tmp_path / "model" / "saved_model.pb")


@pytest.mark.parametrize("engine", ["tensorflow", "openvino"])
def test_nothing_of_a_refused_model_runs(engine, model, tmp_path, tensorflow, monkeypatch):
    if engine == "openvino":
        pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install -e '.[openvino]'")
    monkeypatch.chdir(tmp_path)
    write_evil(tensorflow, tmp_path / "evil", write)
    shutil.rmtree(model / "variables")
    shutil.copy(tmp_path / "evil" / "saved_model.pb", model)
    shutil.copytree(tmp_path / "evil" / "variables", model / "variables")
    state_hashes(model)
    # OpenVINO has no such operation.
    said = {"tensorflow": "operation 'WriteFile' is not one", "openvino": "damaged, or not a SavedModel"}
    with pytest.raises(RunError, match=said[engine]):
        Predictor(model, engine=engine)
    assert not (tmp_path / "written").exists()


def change(path, alter):
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    [meta] = saved.meta_graphs
    alter(meta, {node.name: node for node in meta.graph_def.node})
    path.write_bytes(saved.SerializeToString())


@pytest.mark.parametrize("name", ["Relu", "SaveV2", "RestoreV2"])
def test_a_function_named_like_an_operation_is_refused(name, tmp_path, tensorflow):
    """A node whose operation has the name of a function calls the function."""

    def hide(meta, nodes):
        library = meta.graph_def.library.function
        [hidden] = [one.signature for one in library if any(node.op == "WriteFile" for node in one.node_def)]
        calls = [*nodes.values(), *(node for one in library for node in one.node_def)]
        calls = [node for node in calls if node.attr["f"].func.name == hidden.name]
        assert calls
        for node in calls:
            node.op = name
            node.attr.clear()
        hidden.name = name

    write_evil(tensorflow, tmp_path / "evil", write)
    change(tmp_path / "evil" / "saved_model.pb", hide)
    with pytest.raises(RunError, match=f"a function of it has the name of operation '{name}': do not use this model"):
        check_graph(tmp_path / "evil" / "saved_model.pb")


def use_the_saver(meta, nodes):
    """A computation waits for the saver."""
    nodes["StatefulPartitionedCall"].input.append("^" + meta.saver_def.save_tensor_name.partition(":")[0])


def answer_with_the_saver(meta, nodes):
    meta.signature_def["serving_default"].outputs["mask"].name = meta.saver_def.save_tensor_name


def start_with_the_saver(meta, nodes):
    [main] = meta.collection_def["saved_model_main_op"].node_list.value
    meta.collection_def["saved_model_main_op"].node_list.value[:] = [meta.saver_def.save_tensor_name.partition(":")[0]]
    assert main


def another_file(meta, nodes):
    """The saver writes to a path of its own when the variables are restored."""
    node = nodes[meta.saver_def.save_tensor_name.partition(":")[0]]
    nodes["Const"].attr["value"].tensor.string_val[:] = [b"/home/victim"]
    node.input[0] = "Const"


def call_the_saver(meta, nodes):
    """A signature calls the function of the saver."""
    node = nodes[meta.saver_def.save_tensor_name.partition(":")[0]]
    nodes["StatefulPartitionedCall"].attr["f"].CopyFrom(node.attr["f"])


def save_on_restoring(meta, nodes):
    node = nodes[meta.saver_def.save_tensor_name.partition(":")[0]]
    nodes[meta.saver_def.restore_op_name].attr["f"].CopyFrom(node.attr["f"])


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (use_the_saver, "a computation of it reads or writes files"),
        (answer_with_the_saver, "a computation of it reads or writes files"),
        (start_with_the_saver, "a computation of it reads or writes files"),
        (another_file, "its saver names a file of its own"),
        (call_the_saver, "operation '.*' is not one of this package's exports"),
        (save_on_restoring, "operation '.*' is not one of this package's exports"),
    ],
)
def test_the_saver_is_for_the_saver_alone(alter, message, model):
    check_graph(model / "saved_model.pb")
    change(model / "saved_model.pb", alter)
    with pytest.raises(RunError, match=message):
        check_graph(model / "saved_model.pb")


def test_changed_damaged_and_linked_files(model, monkeypatch):
    graph = model / "saved_model.pb"
    original = graph.read_bytes()
    for content in (b"", original[: len(original) // 2], b"\xff" * 100):
        graph.write_bytes(content)
        with pytest.raises(RunError, match="saved_model.pb: damaged, or not a SavedModel"):
            check_graph(graph)
    graph.write_bytes(original)
    (model / "saved_model.cpb").touch()
    with pytest.raises(RunError, match="a second graph"):
        check_saved_model(model)
    (model / "saved_model.cpb").unlink()
    shutil.move(graph, model.parent / "elsewhere.pb")
    graph.symlink_to(model.parent / "elsewhere.pb")
    with pytest.raises(RunError, match="saved_model.pb: missing, or a link"):
        check_saved_model(model)
    monkeypatch.setattr(saved_model_check, "LARGEST_GRAPH", 1000)
    with pytest.raises(RunError, match="larger than a graph"):
        check_graph(model.parent / "elsewhere.pb")


def test_weights_of_another_model(model, trained_run):
    """The description and the graph of one model with the variables of another."""
    [data] = model.glob("variables/variables.data*")
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    for engine in ("tensorflow", "auto"):
        with pytest.raises(RunError, match="damaged, or changed since its export: copy or export the model again"):
            Predictor(model, engine=engine)
