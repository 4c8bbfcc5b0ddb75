#!/usr/bin/env bash
# torch 2.13.0, Intel and AMD: a quantised ConvTranspose2d answers wrongly with the engine onednn where it has other numbers of input
# and output channels, off by as much as the answer itself. qnnpack is right, and so is onednn with as many inputs as outputs.
# x86, the default engine, hands such layers to onednn on CPUs with AVX512-VNNI.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 'numpy<2.4'
"$folder/venv/bin/python" -W ignore - <<'PY'
import torch
import torch.ao.nn.quantized as nnq

print("torch", torch.__version__, "on", torch.backends.cpu.get_cpu_capability(), "default engine", torch.backends.quantized.engine)
for channels_in, channels_out in ((32, 32), (64, 32), (4, 6)):
    torch.manual_seed(0)
    layer = torch.nn.ConvTranspose2d(channels_in, channels_out, 3, bias=False)
    x = torch.quantize_per_tensor(torch.rand(1, channels_in, 5, 5), 1 / 127, 0, torch.quint8)
    weight = layer.weight.detach()
    weight = torch.quantize_per_tensor(weight, weight.abs().max().item() / 127, 0, torch.qint8)
    exact = torch.nn.functional.conv_transpose2d(x.dequantize(), weight.dequantize())
    errors = {}
    for engine in ("qnnpack", "onednn", "x86"):
        torch.backends.quantized.engine = engine
        quantised = nnq.ConvTranspose2d(channels_in, channels_out, 3, bias=False)
        quantised.set_weight_bias(weight, None)
        quantised.scale = (exact.max() - exact.min()).item() / 255
        quantised.zero_point = round(-exact.min().item() / quantised.scale)
        errors[engine] = ((quantised(x).dequantize() - exact).norm() / exact.norm()).item()
    print(f"{channels_in} -> {channels_out}:", {engine: f"{error:.3f}" for engine, error in errors.items()})
    assert errors["qnnpack"] < 0.02
    assert (errors["onednn"] > 0.2) == (channels_in != channels_out), "the behaviour has changed"
PY
