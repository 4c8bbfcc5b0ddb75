#!/usr/bin/env bash
# torchinfo 1.8.0 and thop 0.1.1.post2209072238 count a strided transposed convolution's multiplications too high: outputs times the
# kernel, as if each output had all the kernel's taps. With kernel 2 and stride 2 each has one of four. torch's own counter, and
# ptflops 0.7.5, give H W Cin Cout kH kW of the input's size.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 torchinfo==1.8.0 thop==0.1.1.post2209072238 ptflops==0.7.5 'numpy<2.4'
"$folder/venv/bin/python" -W ignore - <<'PY'
import thop
import torch
import torchinfo
from ptflops import get_model_complexity_info
from torch.utils.flop_counter import FlopCounterMode

print("torch", torch.__version__, "torchinfo", torchinfo.__version__)
for stride in (1, 2):
    layer = torch.nn.ConvTranspose2d(8, 4, 2, stride, bias=False)
    x = torch.randn(1, 8, 16, 16)
    exact = 16 * 16 * 8 * 4 * 2 * 2
    with FlopCounterMode(display=False) as counter:
        outputs = layer(x).numel() // 4
    counts = {
        "torch": counter.get_total_flops() // 2,
        "ptflops": get_model_complexity_info(layer, (8, 16, 16), as_strings=False, print_per_layer_stat=False, backend="pytorch")[0],
        "torchinfo": torchinfo.summary(layer, input_data=x, verbose=0).total_mult_adds,
        "thop": int(thop.profile(layer, (x,), verbose=False)[0]),
    }
    print(f"stride {stride}: exact {exact}, outputs times the kernel {outputs * 8 * 4 * 2 * 2};", counts)
    assert counts["torch"] == counts["ptflops"] == exact, "the behaviour has changed"
    assert counts["torchinfo"] == counts["thop"] == outputs * 8 * 4 * 2 * 2, "the behaviour has changed"
PY
