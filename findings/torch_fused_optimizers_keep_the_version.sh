#!/usr/bin/env bash
# torch 2.13.0: a step of an optimiser with fused=True changes a parameter and leaves its version counter as it was.
# The version (Tensor._version) counts in-place changes; caches of derived weights compare it. The plain optimisers raise it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 'numpy<2.4'
"$folder/venv/bin/python" -W ignore - <<'PY'
import torch

print("torch", torch.__version__)
for name in ("SGD", "Adam", "AdamW", "Adagrad"):
    for fused in (False, True):
        parameter = torch.nn.Parameter(torch.ones(4))
        optimizer = getattr(torch.optim, name)([parameter], lr=0.1, fused=fused)
        parameter.grad = torch.ones(4)
        before = parameter._version
        optimizer.step()
        raised = parameter._version - before
        changed = not torch.equal(parameter.data, torch.ones(4))
        print(f"{name:8} fused={fused!s:5} changed the parameter: {changed}, raised its version by {raised}")
        assert changed
        assert (raised == 0) == fused, "the behaviour has changed"
PY
