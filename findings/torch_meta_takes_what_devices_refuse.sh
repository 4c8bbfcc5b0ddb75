#!/usr/bin/env bash
# torch 2.13.0: on the meta device conv_transpose2d tells a size for arguments that every real device refuses: stride 0, groups 0,
# dilation 0, negative padding, an output_padding that is not below stride or dilation, groups that do not divide the channels.
# A model that was planned with meta tensors can therefore fail at its first real call.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 'numpy<2.4'
"$folder/venv/bin/python" -W ignore - <<'PY'
import torch
import torch.nn.functional as F

print("torch", torch.__version__)
x, weight = torch.randn(1, 4, 5, 5), torch.randn(4, 6, 3, 3)
for arguments in (
    {"stride": 0},
    {"groups": 0},
    {"groups": 3},
    {"dilation": 0},
    {"padding": -1},
    {"output_padding": 5},
    {"output_padding": -1},
):
    try:
        F.conv_transpose2d(x, weight, **arguments)
    except RuntimeError as raised:
        refused = str(raised).splitlines()[0][:70]
    else:
        raise AssertionError("the CPU does not refuse it")
    size = tuple(F.conv_transpose2d(x.to("meta"), weight.to("meta"), **arguments).shape)
    print(f"{arguments}: meta {size}, CPU: {refused}")
PY
