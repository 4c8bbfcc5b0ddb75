#!/usr/bin/env bash
# torch 2.13.0, CPU: conv_transpose2d of fp16 tensors has about twice the error of one rounding, that of bf16 tensors has not.
# One rounding of exact sums is what float32 arithmetic rounded once gives. The difference says that fp16 results are rounded between
# the taps of an output, so an fp16 answer of the CPU is no reference for other fp16 implementations.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 'numpy<2.4'
"$folder/venv/bin/python" -W ignore - <<'PY'
import torch
import torch.nn.functional as F

print("torch", torch.__version__)
torch.manual_seed(0)
for dtype, rounds in ((torch.float16, True), (torch.bfloat16, False)):
    x, weight = torch.randn(1, 64, 8, 8).to(dtype), torch.randn(64, 1, 4, 4).to(dtype)
    exact = F.conv_transpose2d(x.double(), weight.double(), stride=2, padding=1)

    def error(y):
        return ((y.double() - exact).norm() / exact.norm()).item()

    got = error(F.conv_transpose2d(x, weight, stride=2, padding=1))
    once = error(F.conv_transpose2d(x.float(), weight.float(), stride=2, padding=1).to(dtype))
    print(f"{dtype}: error {got:.2e}, of one rounding {once:.2e}")
    assert (got > 1.5 * once) == rounds, "the behaviour has changed"
PY
