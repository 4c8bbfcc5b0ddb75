#!/usr/bin/env bash
# torch 2.13.0: fuse_conv_bn_eval(transpose=True) raises for a transposed convolution with groups.
# A transposed convolution's weight is [Cin, Cout / groups, kH, kW]; the function scales its second axis by one factor for each of
# Cout channels, which only fits where groups is 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 'numpy<2.4'
"$folder/venv/bin/python" -W ignore - <<'PY'
import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval

print("torch", torch.__version__)
torch.manual_seed(0)
x = torch.randn(1, 8, 5, 5)
for groups in (1, 2):
    convolution = torch.nn.ConvTranspose2d(8, 8, 3, groups=groups).eval()
    norm = torch.nn.BatchNorm2d(8).eval()
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    try:
        fused = fuse_conv_bn_eval(convolution, norm, transpose=True)
        error = (fused(x) - norm(convolution(x))).abs().max().item()
        print(f"groups {groups}: fused, largest difference {error:.1e}")
        assert groups == 1 and error < 1e-5, "the behaviour has changed"
    except RuntimeError as raised:
        print(f"groups {groups}: {raised}")
        assert groups == 2, "the behaviour has changed"
PY
