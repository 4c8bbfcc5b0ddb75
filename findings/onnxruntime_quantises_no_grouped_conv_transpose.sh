#!/usr/bin/env bash
# onnxruntime 1.32.0: quantize_static(per_channel=True) raises for a ConvTranspose with groups and a bias ("could not be broadcast").
# The weight is [Cin, Cout / groups, kH, kW] and gets one scale for each of its second axis; the bias has Cout numbers. Without
# groups, without a bias and with one scale a tensor the model is quantised. Depthwise ones get one scale for all channels.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 'numpy<2.4'
"$folder/venv/bin/python" -W ignore - <<'PY'
import logging
import os
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

print("onnxruntime", onnxruntime.__version__)
logging.disable(logging.CRITICAL)
generator = np.random.default_rng(0)


class Images(CalibrationDataReader):
    def __init__(self):
        self.left = iter([{"x": generator.standard_normal((1, 8, 5, 5)).astype("f")} for _ in range(3)])

    def get_next(self):
        return next(self.left, None)


def quantised(groups, bias, per_channel):
    """What became of a ConvTranspose of 8 to 8 channels."""
    weights = {"w": generator.standard_normal((8, 8 // groups, 3, 3)).astype("f")}
    if bias:
        weights["b"] = generator.standard_normal(8).astype("f")
    node = helper.make_node("ConvTranspose", ["x", *weights], ["y"], group=groups, strides=[2, 2])
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", (1, 8, 5, 5)), ("y", None))]
    kept = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph([node], "graph", values[:1], values[1:], kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with tempfile.TemporaryDirectory() as folder:
        before, after = (os.path.join(folder, name) for name in ("before.onnx", "after.onnx"))
        onnx.save(model, before)
        try:
            quantize_static(before, after, Images(), per_channel=per_channel, weight_type=QuantType.QInt8)
        except ValueError as raised:
            return str(raised)
    return "quantised"


for groups, bias, per_channel, fails in (
    (1, True, True, False),
    (2, True, False, False),
    (2, False, True, False),
    (2, True, True, True),
    (4, True, True, True),
):
    text = quantised(groups, bias, per_channel)
    print(f"groups {groups}, bias {bias}, per channel {per_channel}: {text}")
    assert ("could not be broadcast" in text) == fails, "the behaviour has changed"
PY
