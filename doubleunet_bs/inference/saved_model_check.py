"""Whether a SavedModel is what this package exported. A SavedModel is a program: it can read and write files.

Two checks before anything of it runs. The files have the hashes that its description states, so a damaged or mixed-up
copy is found. And where TensorFlow will run it, the graph holds only operations of our own exports, so that one made to
read or write files is refused. OpenVINO has no such operations. Neither check says who made the model.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from doubleunet_bs.errors import RunError
from doubleunet_bs.files import read_json
from doubleunet_bs.inference.model_description import DESCRIPTION
from doubleunet_bs.preparation.shards import file_sha256

GRAPH = "saved_model.pb"
FILES = "files_sha256"
"""Entry of the description beside the graph: file -> SHA-256. The copy inside the graph cannot have it."""
LARGEST_GRAPH = 64 * 2**20
"""Bytes of `saved_model.pb`, which holds no weights. Ours has 2 to 20 MB."""

_OF_OUR_EXPORTS = """
AddN AddV2 All Any BatchToSpaceND BiasAdd BroadcastTo Cast ConcatV2 Const Conv2D Cumsum DenseBincount DivNoNan Equal
ExpandDims Fill FloorDiv FloorMod GatherV2 Greater GreaterEqual Identity Less LessEqual LogicalAnd LogicalNot LogicalOr
MatMul Max MaxPool Maximum Mean Min Minimum Mul Neg NoOp Pack Pad PartitionedCall Placeholder Prod Range ReadVariableOp
RealDiv Relu Reshape ResizeBilinear Rint Round Rsqrt Select SelectV2 Shape Sigmoid Softmax SpaceToBatchND Sqrt Squeeze
StatefulPartitionedCall StridedSlice Sub Sum Tile TopKV2 Transpose VarHandleOp
"""
_OF_OTHER_NETWORKS = """
Abs ArgMax AvgPool BatchMatMulV2 Ceil ClipByValue Conv2DBackpropInput DepthToSpace DepthwiseConv2dNative Einsum Elu Erf
Exp Floor FusedBatchNormV3 GatherNd IdentityN LeakyRelu Log Log1p LogSoftmax MirrorPad NotEqual OnesLike PadV2 Pow Rank
Relu6 ResizeNearestNeighbor ReverseV2 Selu Sign Size Slice Softplus SpaceToDepth Split SplitV Square SquaredDifference
StopGradient Tanh Unpack ZerosLike
"""
COMPUTING = frozenset(f"{_OF_OUR_EXPORTS} {_OF_OTHER_NETWORKS}".split())
"""Operations that compute: all of our exports, and those of usual layers, for networks of your own. None touches a
file."""
SAVING = frozenset(
    ("DisableCopyOnRead", "MergeV2Checkpoints", "SaveV2", "ShardedFilename", "StaticRegexFullMatch", "StringJoin")
)
"""Further ones of the function that would save the variables again. `predict` and a model server never call it."""
RESTORING = frozenset(("AssignVariableOp", "RestoreV2"))
"""Further ones of the function that reads `variables/`."""


def hash_files(folder: Path) -> dict[str, str]:
    """The SHA-256 of the graph and of the files of the variables, by their path in the SavedModel folder."""
    paths = [folder / GRAPH, *sorted((folder / "variables").glob("*"))]
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in paths}


def check_files(folder: Path) -> None:
    """Check the files of a SavedModel folder of this package. Imports no TensorFlow.

    Raises:
        RunError: a file is missing, changed or a link.
    """
    for path in (folder / GRAPH, folder / "variables", *(folder / "variables").glob("*")):
        if path.is_symlink() or not path.exists():
            raise RunError(f"{path}: missing, or a link: copy the model folder again")
    others = [name for name in ("saved_model.pbtxt", "saved_model.cpb") if (folder / name).exists()]
    if others:
        raise RunError(f"{folder / others[0]}: a second graph: remove it, or export the model again")
    expected = read_json(folder / DESCRIPTION, RunError, "model description").get(FILES)
    if expected != hash_files(folder):
        raise RunError(f"{folder}: damaged, or changed since its export: copy or export the model again")


def check_graph(path: Path) -> None:
    """Check the operations in a `saved_model.pb`.

    Operations that write are allowed in the one function that would save the variables, those that read in the one that
    restores them, and nothing else may use either.

    Raises:
        RunError: it is damaged, or the first operation that is not allowed.
    """
    # Brings all of TensorFlow, which whoever runs the graph has imported.
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        if path.stat().st_size > LARGEST_GRAPH:
            raise RunError(f"{path}: larger than a graph of this package: export the model again")
        model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    except (OSError, DecodeError) as cause:
        raise RunError(f"{path}: damaged, or not a SavedModel of this package ({cause})") from None
    if not model.meta_graphs:
        raise RunError(f"{path}: damaged, or not a SavedModel of this package (it is empty)")
    for meta in model.meta_graphs:
        _check_meta_graph(path, meta)


def _check_meta_graph(path: Path, meta: Any) -> None:
    functions: dict[str, list[Any]] = {}
    for one in meta.graph_def.library.function:
        functions.setdefault(one.signature.name, []).extend(one.node_def)
    # TensorFlow calls a function also by a node whose operation has its name.
    hidden = sorted((COMPUTING | SAVING | RESTORING) & functions.keys())
    if hidden:
        raise RunError(f"{path}: a function of it has the name of operation {hidden[0]!r}: do not use this model")
    save, restore = (_node_of(meta.saver_def, field) for field in ("save_tensor_name", "restore_op_name"))
    filename = _node_of(meta.saver_def, "filename_tensor_name")
    others = []
    for node in meta.graph_def.node:
        allowed = COMPUTING | {save: SAVING, restore: RESTORING}.get(node.name, frozenset())
        if node.name in (save, restore):
            if list(node.input[:1]) != [filename]:
                raise RunError(f"{path}: its saver names a file of its own: do not use this model")
            _check_operations(path, _reached([node], functions), allowed)
        else:
            others.append(node)
    _check_operations(path, _reached(others, functions), COMPUTING)
    used = [name for node in others for name in node.input]
    used += [tensor.name for one in meta.signature_def.values() for tensor in one.outputs.values()]
    used += [name for one in meta.collection_def.values() for name in one.node_list.value]
    if {save, restore} & {name.lstrip("^").partition(":")[0] for name in used if name}:
        raise RunError(f"{path}: a computation of it reads or writes files: do not use this model")


def _node_of(saver: Any, field: str) -> str:
    return getattr(saver, field).partition(":")[0]


def _reached(nodes: Iterable[Any], functions: dict[str, list[Any]]) -> list[Any]:
    """`nodes` and those of all functions that they call."""
    found, waiting, seen = [], list(nodes), set()
    while waiting:
        node = waiting.pop()
        found.append(node)
        for name in (node.op, *(attribute.func.name for attribute in node.attr.values())):
            if name in functions and name not in seen:
                seen.add(name)
                waiting.extend(functions[name])
    return found


def _check_operations(path: Path, nodes: Iterable[Any], allowed: frozenset[str]) -> None:
    foreign = sorted({node.op for node in nodes} - allowed)
    if foreign:
        name = foreign[0][:40]
        raise RunError(f"{path}: operation {name!r} is not one of this package's exports: do not use this model")
