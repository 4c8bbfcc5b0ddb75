#!/usr/bin/env bash
# torch 2.13.0: FlopCounterMode counts too much for the backward pass of a grouped transposed convolution.
# Forward has 2 N H W Cin (Cout / groups) kH kW operations, and each of the two gradients has as many. The counter agrees for
# groups = 1 and for every forward pass; for groups = 4 it reports five times the forward figure for backward, not twice.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 'numpy<2.4'
"$folder/venv/bin/python" -W ignore - <<'PY'
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

print("torch", torch.__version__)
for groups, expected in ((1, 2.0), (4, 5.0)):
    x = torch.randn(2, 8, 5, 5, requires_grad=True)
    weight = torch.randn(8, 4, 3, 3, requires_grad=True)
    with FlopCounterMode(display=False) as forward:
        y = F.conv_transpose2d(x, weight, stride=2, groups=groups)
    with FlopCounterMode(display=False) as backward:
        y.sum().backward()
    exact = 2 * 2 * 5 * 5 * 8 * 4 * 3 * 3
    ratio = backward.get_total_flops() / exact
    print(f"groups {groups}: forward {forward.get_total_flops()} (exact {exact}), backward {ratio:g} times that (exact: 2)")
    assert forward.get_total_flops() == exact
    assert ratio == expected, "the behaviour has changed"
PY
