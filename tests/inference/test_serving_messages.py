"""The messages of this package are TensorFlow Serving's own, field for field."""

import numpy as np
import pytest

pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed: pip install -e '.[test]'")

from doubleunet_bs.errors import ServerError
from doubleunet_bs.inference import serving_client as own
from doubleunet_bs.inference.serving_client import predict_request, read_tensor, warmup_record


@pytest.fixture(scope="module")
def theirs(tensorflow):
    from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2
    from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

    return {
        "TensorProto": tensor_pb2.TensorProto,
        "TensorShapeProto": tensor_shape_pb2.TensorShapeProto,
        "Dimension": tensor_shape_pb2.TensorShapeProto.Dim,
        "ModelSpec": model_pb2.ModelSpec,
        "PredictRequest": predict_pb2.PredictRequest,
        "PredictResponse": predict_pb2.PredictResponse,
        "PredictLog": prediction_log_pb2.PredictLog,
        "PredictionLog": prediction_log_pb2.PredictionLog,
    }


def test_fields_have_the_same_names_numbers_and_types(theirs):
    for name, message in theirs.items():
        fields = message.DESCRIPTOR.fields_by_name
        for field in own._CLASSES[name].DESCRIPTOR.fields:
            other = fields[field.name]
            # An enumeration travels as a number.
            kinds = {other.type, field.TYPE_INT32 if other.type == other.TYPE_ENUM else other.type}
            assert (other.number, other.is_repeated) == (field.number, field.is_repeated), (name, field.name)
            assert field.type in kinds, (name, field.name)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
def test_requests_are_read_by_theirs(theirs, tensorflow, dtype):
    array = np.random.default_rng(0).integers(0, 200, (2, 3, 4)).astype(dtype)
    request = theirs["PredictRequest"].FromString(predict_request("name", "endpoint", {"x": array}).SerializeToString())
    assert (request.model_spec.name, request.model_spec.signature_name) == ("name", "endpoint")
    found = tensorflow.make_ndarray(request.inputs["x"])
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)
    log = theirs["PredictionLog"].FromString(warmup_record(predict_request("name", "endpoint", {"x": array})))
    assert log.WhichOneof("log_type") == "predict_log"
    assert log.predict_log.request == request


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
@pytest.mark.parametrize("values", [True, False])
def test_answers_of_theirs_are_read(theirs, tensorflow, dtype, values):
    from model_server import fill_as_values

    array = np.random.default_rng(0).integers(0, 200, (2, 3, 4)).astype(dtype)
    response = theirs["PredictResponse"]()
    if values:
        fill_as_values(response.outputs["x"], array)
    else:
        response.outputs["x"].CopyFrom(tensorflow.make_tensor_proto(array))
    tensor = own.PredictResponse.FromString(response.SerializeToString()).outputs["x"]
    found = read_tensor(tensor, dtype, array.shape, "x")
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)


def test_strings_and_equal_values(theirs, tensorflow):
    response = theirs["PredictResponse"]()
    response.outputs["s"].CopyFrom(tensorflow.make_tensor_proto([b"one", b"two"]))
    response.outputs["f"].CopyFrom(tensorflow.make_tensor_proto(0.5, shape=(3, 2)))
    assert len(response.outputs["f"].float_val) == 1
    answer = own.PredictResponse.FromString(response.SerializeToString())
    assert read_tensor(answer.outputs["s"], "string", (2,), "s").tolist() == [b"one", b"two"]
    assert np.array_equal(read_tensor(answer.outputs["f"], "float32", (3, 2), "f"), np.full((3, 2), 0.5, np.float32))
    empty = own.PredictRequest().inputs["e"]
    empty.dtype = 4
    empty.tensor_shape.dim.add(size=0)
    assert read_tensor(empty, "uint8", (0,), "e").shape == (0,)


@pytest.mark.parametrize(
    ("change", "dtype", "shape", "message"),
    [
        ({}, "float32", (2, 2), "has type 4 and shape"),
        ({}, "uint8", (4,), r"shape \(2, 2\), not uint8 and \(4,\)"),
        ({"tensor_content": b"abc"}, "uint8", (2, 2), "cut off"),
        ({"tensor_content": b""}, "uint8", (2, 2), "0 values instead of 4"),
        ({"tensor_content": b"", "int_val": [1] * 5}, "uint8", (2, 2), "5 values instead of 4"),
    ],
)
def test_tensors_that_are_refused(change, dtype, shape, message):
    request = predict_request("name", "endpoint", {"x": np.ones((2, 2), np.uint8)})
    tensor = request.inputs["x"]
    for field, value in change.items():
        if isinstance(value, list):
            getattr(tensor, field).extend(value)
        else:
            setattr(tensor, field, value)
    with pytest.raises(ServerError, match=message):
        read_tensor(tensor, dtype, shape, "mask")
