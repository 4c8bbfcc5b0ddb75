"""Published networks with transposed convolutions, in plain torch, with random weights.

Only what costs time is here: sizes, kernels and the order of layers are those of the named source.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Network:
    """A network as it is usually run."""

    name: str
    source: str
    make: Callable[[], nn.Module]
    input: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    channels_last: bool = False


def conv(axes: int, *arguments: int, **keywords: int) -> nn.Module:
    return (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1](*arguments, **keywords)


def up(axes: int, *arguments: int, **keywords: int) -> nn.Module:
    kinds = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    return kinds[axes - 1](*arguments, **keywords)


class UNet(nn.Module):
    """Two convolutions a level; k2s2 upwards, joined with the level's own output.

    norm, activation: as U-Net (batch norm, ReLU) or nnU-Net (instance norm, leaky ReLU) have them.
    """

    def __init__(self, axes: int, widths: tuple[int, ...], into: int, out: int, nnunet: bool):
        super().__init__()
        norms = (nn.InstanceNorm2d, nn.InstanceNorm3d) if nnunet else (nn.BatchNorm2d,)
        norm = norms[axes - 2]

        def level(first: int, last: int, stride: int = 1) -> nn.Sequential:
            layers: list[nn.Module] = []
            for a, b, s in ((first, last, stride), (last, last, 1)):
                act = nn.LeakyReLU(0.01, inplace=True) if nnunet else nn.ReLU(inplace=True)
                affine = norm(b, affine=True)
                layers += [conv(axes, a, b, 3, stride=s, padding=1), affine, act]
            return nn.Sequential(*layers)

        # nnU-Net halves by a stride, U-Net by pooling.
        self.pool = nn.Identity() if nnunet else nn.MaxPool2d(2)
        steps = list(itertools.pairwise(widths))
        first = [level(into, widths[0])]
        self.down = nn.ModuleList(first + [level(a, b, 2 if nnunet else 1) for a, b in steps])
        self.up = nn.ModuleList(up(axes, b, a, 2, stride=2) for a, b in reversed(steps))
        self.join = nn.ModuleList(level(2 * a, a) for a, _ in reversed(steps))
        self.head = conv(axes, widths[0], out, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.down[0](x)]
        for down in self.down[1:]:
            skips.append(down(self.pool(skips[-1])))
        x = skips.pop()
        for layer, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat([skips.pop(), layer(x)], 1))
        return self.head(x)


def dcgan() -> nn.Module:
    layers: list[nn.Module] = []
    widths = (100, 512, 256, 128, 64)
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        deconv = nn.ConvTranspose2d(a, b, 4, 2 if i else 1, 1 if i else 0, bias=False)
        layers += [deconv, nn.BatchNorm2d(b), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(64, 3, 4, 2, 1, bias=False), nn.Tanh())


class Dilated(nn.Module):
    """HiFi-GAN's ResBlock1."""

    def __init__(self, width: int, kernel: int):
        super().__init__()
        self.pairs = nn.ModuleList(
            nn.Sequential(
                nn.LeakyReLU(0.1),
                nn.Conv1d(width, width, kernel, dilation=d, padding=d * (kernel - 1) // 2),
                nn.LeakyReLU(0.1),
                nn.Conv1d(width, width, kernel, padding=(kernel - 1) // 2),
            )
            for d in (1, 3, 5)
        )

    def forward(self, x: Tensor) -> Tensor:
        for pair in self.pairs:
            x = x + pair(x)
        return x


class HiFiGAN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(80, 512, 7, padding=3)
        shapes = ((512, 16, 8), (256, 16, 8), (128, 4, 2), (64, 4, 2))
        self.up = nn.ModuleList(
            nn.ConvTranspose1d(c, c // 2, k, s, padding=(k - s) // 2) for c, k, s in shapes
        )
        self.blocks = nn.ModuleList(
            nn.ModuleList(Dilated(c // 2, k) for k in (3, 7, 11)) for c, _, _ in shapes
        )
        self.last = nn.Conv1d(32, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer, blocks in zip(self.up, self.blocks, strict=True):
            x = layer(F.leaky_relu(x, 0.1))
            x = sum(block(x) for block in blocks) / 3
        return torch.tanh(self.last(F.leaky_relu(x)))


class Codec(nn.Module):
    """SEANet's decoder as Encodec at 24 kHz has it."""

    class Unit(nn.Module):
        def __init__(self, width: int):
            super().__init__()
            self.body = nn.Sequential(
                nn.ELU(), nn.Conv1d(width, width // 2, 3, padding=1),
                nn.ELU(), nn.Conv1d(width // 2, width, 1),
            )  # fmt: skip
            self.skip = nn.Conv1d(width, width, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.skip(x) + self.body(x)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(128, 512, 7, padding=3)
        self.lstm = nn.LSTM(512, 512, 2)
        layers: list[nn.Module] = []
        width = 512
        for ratio in (8, 5, 4, 2):
            deconv = nn.ConvTranspose1d(width, width // 2, 2 * ratio, ratio, padding=ratio // 2)
            width //= 2
            layers += [nn.ELU(), deconv, Codec.Unit(width)]
        self.rest = nn.Sequential(*layers, nn.ELU(), nn.Conv1d(width, 1, 7, padding=3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        sequence = x.permute(2, 0, 1)
        x = (self.lstm(sequence)[0] + sequence).permute(1, 2, 0)
        return self.rest(x)


class Bottleneck(nn.Module):
    def __init__(self, into: int, width: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(into, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width),
        )  # fmt: skip
        self.skip = nn.Identity() if into == 4 * width else nn.Conv2d(into, 4 * width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x))


def pose_head(into: int, deconvs: int, joints: int = 17) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for i in range(deconvs):
        deconv = nn.ConvTranspose2d(256 if i else into, 256, 4, 2, 1, bias=False)
        layers += [deconv, nn.BatchNorm2d(256), nn.ReLU(True)]
    return [*layers, nn.Conv2d(256, joints, 1)]


def simple_baseline() -> nn.Module:
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]  # fmt: skip
    into = 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for i in range(blocks):
            layers.append(Bottleneck(into, width, 1 if i else stride))
            into = 4 * width
    return nn.Sequential(*layers, *pose_head(2048, 3))


class ViTPose(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 768, 16, 16)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                768, 12, 3072, 0.0, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(12)
        )
        self.head = nn.Sequential(*pose_head(768, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x)
        size = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens.transpose(1, 2).reshape(size))


def mask_head() -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(4):
        layers += [nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU(True)]
    return nn.Sequential(
        *layers, nn.ConvTranspose2d(256, 256, 2, 2), nn.ReLU(True), nn.Conv2d(256, 91, 1)
    )


class SAMUpscaling(nn.Module):
    """From the image embedding of each prompt to its four masks."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ConvTranspose2d(256, 64, 2, 2)
        self.norm = nn.GroupNorm(1, 64)
        self.second = nn.ConvTranspose2d(64, 32, 2, 2)
        self.tokens = nn.Parameter(torch.randn(4, 32))

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm(self.first(x)))
        x = F.gelu(self.second(x))
        return torch.einsum("mc,nchw->nmhw", self.tokens, x)


_H, _L = torch.float16, True
NETWORKS = (
    Network("U-Net", "milesial/Pytorch-UNet",
            lambda: UNet(2, (64, 128, 256, 512, 1024), 3, 2, False), (1, 3, 640, 960), _H, _L),
    Network("U-Net, fp32", "milesial/Pytorch-UNet",
            lambda: UNet(2, (64, 128, 256, 512, 1024), 3, 2, False), (1, 3, 640, 960)),
    Network("DCGAN generator", "pytorch/examples", dcgan, (64, 100, 1, 1)),
    Network("HiFi-GAN V1", "jik876/hifi-gan", HiFiGAN, (1, 80, 800)),
    Network("HiFi-GAN V1, fp16", "jik876/hifi-gan", HiFiGAN, (8, 80, 400), _H),
    Network("Encodec decoder", "facebookresearch/encodec", Codec, (4, 128, 150)),
    Network("SimpleBaseline-R50", "microsoft/human-pose-estimation.pytorch", simple_baseline,
            (64, 3, 256, 192), _H, _L),
    Network("SimpleBaseline-R50, fp32", "microsoft/human-pose-estimation.pytorch",
            simple_baseline, (32, 3, 256, 192)),
    Network("ViTPose-B", "ViTAE-Transformer/ViTPose", ViTPose, (64, 3, 256, 192), _H),
    Network("Mask R-CNN mask head", "pytorch/vision", mask_head, (200, 256, 14, 14)),
    Network("Mask R-CNN mask head, fp16", "facebookresearch/detectron2", mask_head,
            (1000, 256, 14, 14), _H, _L),
    Network("SAM output upscaling", "facebookresearch/segment-anything", SAMUpscaling,
            (64, 256, 64, 64)),
    Network("nnU-Net 2-D", "MIC-DKFZ/nnUNet",
            lambda: UNet(2, (32, 64, 128, 256, 512, 512, 512, 512), 1, 4, True),
            (12, 1, 512, 512), _H),
    Network("nnU-Net 3-D", "MIC-DKFZ/nnUNet",
            lambda: UNet(3, (32, 64, 128, 256, 320, 320), 1, 4, True), (2, 1, 128, 128, 128), _H),
)  # fmt: skip
