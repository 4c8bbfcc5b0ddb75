#!/usr/bin/env bash
# onnxruntime 1.32.0, and onnx 1.23.2's shape inference: a ConvTranspose with auto_pad=SAME_UPPER or SAME_LOWER and a stride over the
# kernel has fewer than input * stride outputs, which is what the operator's definition gives for SAME. Rows that no input reaches
# are missing at the end: 14 for 15 with 5 inputs, kernel 2, stride 3. Where the kernel is at least the stride the size is right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 'numpy<2.4'
"$folder/venv/bin/python" -W ignore - <<'PY'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, defs, helper

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
definition = defs.get_schema("ConvTranspose").attributes["auto_pad"].description
assert "output_shape[i] = input_shape[i] * strides[i]" in definition
for auto_pad in ("SAME_UPPER", "SAME_LOWER"):
    for kernel, stride in ((3, 3), (4, 3), (2, 3), (1, 3)):
        node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[stride], auto_pad=auto_pad)
        sizes = {"x": (1, 1, 5), "w": (1, 1, kernel)}
        values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in sizes.items()]
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph([node], "graph", values, [output])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
        inferred = onnx.shape_inference.infer_shapes(model).graph.output[0].type.tensor_type.shape.dim[2].dim_value
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        y = session.run(None, {n: np.ones(s, "f") for n, s in sizes.items()})[0]
        print(f"{auto_pad}, kernel {kernel}, stride {stride}: {y.shape[2]} outputs, {inferred} inferred, {5 * stride} defined")
        assert y.shape[2] == inferred == min(5 * stride, 4 * stride + kernel), "the behaviour has changed"
PY
