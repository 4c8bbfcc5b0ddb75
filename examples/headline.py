"""The headline layer: KernelBench level 1 #81, stride 5 and dilation 2, 831 MB of output.

On a GPU: time against cuDNN, bandwidth, share of the write floor, error. Without one: the plan for
an RTX 4090, and the kernel's own arithmetic in Triton's interpreter on a crop.
"""

import os

import torch
import torch.nn.functional as F

import convt
from convt._cli_bench import median_ms, relative_error

LAYER = {"stride": 5, "padding": 1, "dilation": 2}


def on_gpu() -> None:
    torch.backends.cudnn.benchmark = True
    x = torch.randn(16, 32, 64, 128, device="cuda")
    model = convt.ModelNew(32, 64, 3, stride=5, padding=1, dilation=2).cuda()
    weight = model.conv.weight
    with torch.inference_mode():
        y = model(x)
        reference = F.conv_transpose2d(x[:2].double(), weight.double(), **LAYER)
        runs = {
            "write floor": lambda: y.fill_(0.5),
            "cuDNN": lambda: F.conv_transpose2d(x, weight, **LAYER),
            "convt": lambda: model(x),
        }
        print(convt.explain(x, weight, **LAYER), "\n")
        times = {name: median_ms(function) for name, function in runs.items()}
        errors = {
            "cuDNN": relative_error(F.conv_transpose2d(x[:2], weight, **LAYER), reference),
            "convt": relative_error(model(x)[:2], reference),
        }
    bytes_written = y.numel() * y.element_size()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    print(f"{'':12} {'ms':>8} {'GB/s':>8} {'of floor':>9} {'error':>9}")
    for name, ms in times.items():
        share = f"{times['write floor'] / ms:9.0%}"
        error = f"{errors[name]:9.1e}" if name in errors else ""
        print(f"{name:12} {ms:8.3f} {bytes_written / ms / 1e6:8.0f} {share} {error}")


def without_gpu() -> None:
    os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported

    x = torch.empty(16, 32, 64, 128, device="meta")
    weight = torch.empty(32, 64, 3, 3, device="meta")
    print("No CUDA device here. On an RTX 4090 this layer would run as\n ", end="")
    chosen = convt.explain(x, weight, **LAYER, arch="sm_89")
    print(chosen, "\n")

    from aot.interpret import run

    x, weight = torch.randn(1, 32, 3, 6), torch.randn(32, 64, 3, 3)
    crop = convt.explain(x, weight, **LAYER, arch="sm_89").problem
    reference = F.conv_transpose2d(x.double(), weight.double(), **LAYER)
    y = torch.full(reference.shape, float("nan"))
    run(convt._C.plan_with(crop, chosen.gpu, chosen.config), x, weight, None, y)
    print(f"Its arithmetic on a crop, in Triton's interpreter: {chosen.config},")
    print(f"relative error {relative_error(y, reference):.1e} against fp64 (of {tuple(y.shape)})")


if __name__ == "__main__":
    on_gpu() if torch.cuda.is_available() else without_gpu()
