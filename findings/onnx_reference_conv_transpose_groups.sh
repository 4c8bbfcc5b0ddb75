#!/usr/bin/env bash
# onnx 1.23.2: the reference evaluator raises for a ConvTranspose with group = 2 and two output channels a group.
# onnxruntime 1.32.0 answers the same model with the shape that the operator's definition gives.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 'numpy<2.4'
"$folder/venv/bin/python" -W ignore - <<'PY'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], group=2, strides=[2, 2])
values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", (1, 4, 3, 3)), ("w", (4, 2, 3, 3)))]
output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
graph = helper.make_graph([node], "graph", values, [output])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
generator = np.random.default_rng(0)
feeds = {n: generator.standard_normal(s).astype("f") for n, s in (("x", (1, 4, 3, 3)), ("w", (4, 2, 3, 3)))}
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
print("onnxruntime:", session.run(None, feeds)[0].shape)
assert session.run(None, feeds)[0].shape == (1, 4, 7, 7)
try:
    ReferenceEvaluator(model).run(None, feeds)
except ValueError as raised:
    print("reference evaluator:", raised)
else:
    raise AssertionError("the behaviour has changed")
PY
