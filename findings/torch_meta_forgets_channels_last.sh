#!/usr/bin/env bash
# torch 2.13.0: conv_transpose2d of a channels_last input is channels_last on the CPU and contiguous on the meta device.
# Shapes and strides that a program plans with meta tensors are therefore not those it gets.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 'numpy<2.4'
"$folder/venv/bin/python" -W ignore - <<'PY'
import torch
import torch.nn.functional as F

print("torch", torch.__version__)
x = torch.randn(2, 8, 5, 5).to(memory_format=torch.channels_last)
weight = torch.randn(8, 4, 3, 3)
real = F.conv_transpose2d(x, weight)
meta = F.conv_transpose2d(x.to("meta"), weight.to("meta"))
print("input strides ", x.stride(), "on the meta device", x.to("meta").stride())
print("output strides", real.stride(), "on the meta device", meta.stride())
assert real.is_contiguous(memory_format=torch.channels_last)
assert x.to("meta").is_contiguous(memory_format=torch.channels_last)
assert meta.is_contiguous(), "the behaviour has changed"
PY
