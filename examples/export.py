"""A decoder of convt's layers as an AOTInductor package: runs without Python, see cpp/aoti.cpp.

python export.py [FOLDER]: writes decoder.pt2, and decoder.pt with an input and its output.
"""

import sys
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

import convt


def decoder(channels: tuple[int, ...] = (64, 32, 16, 3)) -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [convt.ConvTranspose2d(before, after, 4, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)


@torch.no_grad()
def main(folder: Path) -> None:
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = decoder().eval().to(device)
    x = torch.randn(4, 64, 16, 16, device=device)
    batch = torch.export.Dim("batch", min=1, max=256)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: batch},))
    package = convt.aoti_compile_and_package(program, package_path=str(folder / "decoder.pt2"))

    y = torch._inductor.aoti_load_package(package)(x)
    error = ((y - model(x)).norm() / y.norm()).item()
    torch.save((x, y), folder / "decoder.pt")
    print(f"{package}: {list(y.shape)} on {device}, relative difference {error:.1e}")
    assert error < 1e-6


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
