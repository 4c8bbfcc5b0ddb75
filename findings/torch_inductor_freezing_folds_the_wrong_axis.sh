#!/usr/bin/env bash
# torch 2.13.0: with inductor's freezing on, torch.compile answers wrongly for a transposed convolution followed by an eval-mode
# BatchNorm where it has as many input as output channels. Folding multiplies the weight [Cin, Cout, kH, kW] along Cin, as is right
# for a convolution's [Cout, Cin, kH, kW]. With Cin != Cout nothing is folded and the answer is right. Needs a C++ compiler.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 'numpy<2.4'
"$folder/venv/bin/python" -W ignore - <<'PY'
import torch
import torch._inductor.config

print("torch", torch.__version__)
torch._inductor.config.freezing = True
torch.manual_seed(0)
for channels_in, channels_out in ((8, 8), (8, 4)):
    model = torch.nn.Sequential(
        torch.nn.ConvTranspose2d(channels_in, channels_out, 3), torch.nn.BatchNorm2d(channels_out)
    ).eval()
    model[1].running_var.uniform_(0.2, 3)
    torch.nn.init.uniform_(model[1].weight, 0.5, 2)
    x = torch.randn(2, channels_in, 6, 6)
    with torch.no_grad():
        expected = model(x)
        got = torch.compile(model)(x)
    error = ((got - expected).norm() / expected.norm()).item()
    print(f"{channels_in} -> {channels_out} channels: relative error {error:.1e}")
    assert (error > 1e-2) == (channels_in == channels_out), "the behaviour has changed"
PY
