#!/usr/bin/env bash
# onnxruntime 1.32.0: a ConvTranspose whose output_padding is not smaller than its stride loads, and is refused at every run.
# torch allows it where output_padding is smaller than the dilation (stride 1, dilation 2, output_padding 1), and the operator's
# definition gives its output's size; a session that was made without an error therefore says nothing of such a model.
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

print("onnxruntime", onnxruntime.__version__)
onnxruntime.set_default_logger_severity(4)
node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[1, 1], dilations=[2, 2], output_padding=[1, 1])
values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, 1, 3, 3)) for n in ("x", "w")]
output = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 1, 8, 8))
graph = helper.make_graph([node], "graph", values, [output])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
onnx.checker.check_model(model, full_check=True)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
print("the model is valid and loads")
feeds = {n: np.ones((1, 1, 3, 3), "f") for n in ("x", "w")}
try:
    session.run(None, feeds)
except Exception as raised:
    print("run:", str(raised).splitlines()[0][:200])
    assert "output_padding" in str(raised)
else:
    raise AssertionError("the behaviour has changed")
PY
