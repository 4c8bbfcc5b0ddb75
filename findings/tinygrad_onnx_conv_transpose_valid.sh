#!/usr/bin/env bash
# tinygrad 0.14.0: its ONNX ConvTranspose with auto_pad=VALID, which means no padding, answers with the size of SAME_UPPER: stride times
# the input. onnxruntime 1.32.0 and onnx's shape inference give (in - 1) * stride + kernel, as no auto_pad and no pads do.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tinygrad==0.14.0 onnx==1.23.2 onnxruntime==1.32.0 'numpy<2.4'
"$folder/venv/bin/python" -W ignore - <<'PY'
import os
import tempfile

os.environ["DEV"] = "PYTHON"  # tinygrad's interpreter: needs no compiler
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from tinygrad import Tensor
from tinygrad.nn.onnx import OnnxRunner

print("tinygrad 0.14.0, onnxruntime", onnxruntime.__version__)
generator = np.random.default_rng(0)
feeds = {n: generator.standard_normal(s).astype("f") for n, s in (("x", (1, 2, 5, 6)), ("w", (2, 3, 3, 3)))}
for attributes, differs in (({}, False), ({"auto_pad": "SAME_UPPER"}, False), ({"auto_pad": "VALID"}, True)):
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], **attributes)
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, v.shape) for n, v in feeds.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "graph", values, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    inferred = onnx.shape_inference.infer_shapes(model).graph.output[0].type.tensor_type.shape.dim
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, feeds)[0].shape
    assert expected == tuple(d.dim_value for d in inferred)
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        file.write(model.SerializeToString())
        file.flush()
        got = OnnxRunner(file.name)({n: Tensor(v) for n, v in feeds.items()})["y"].shape
    print(f"{attributes}: tinygrad {tuple(got)}, onnxruntime {expected}")
    assert (tuple(got) != expected) == differs, "the behaviour has changed"
PY
