#!/usr/bin/env bash
# torch 2.13.0: after `with torch.backends.cudnn.flags(enabled=False)`, whatever ran inside, torch.backends.fp32_precision = "ieee"
# no longer reaches convolutions: they stay at TF32. The context manager writes back the precision that it read, and what it read
# was inherited; once written it inherits no more. torch.export uses it too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 'numpy<2.4'
"$folder/venv/bin/python" -W ignore - <<'PY'
import subprocess
import sys

import torch

print("torch", torch.__version__)
CODE = """
import torch
{before}
torch.backends.fp32_precision = "ieee"
print(torch.backends.cudnn.conv.fp32_precision)
"""
for what, before, expected in (
    ("nothing", "", "ieee"),
    ("cudnn.flags", "with torch.backends.cudnn.flags(enabled=False): pass", "tf32"),
    ("torch.export", "torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),))", "tf32"),
):
    command = [sys.executable, "-W", "ignore", "-c", CODE.format(before=before)]
    got = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    print(f"after {what}: fp32_precision = 'ieee' leaves convolutions at {got}")
    assert got == expected, "the behaviour has changed"
PY
