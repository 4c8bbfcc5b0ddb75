"""Layers with several taps an output, by mma.sync and asynchronous copies: any geometry."""

from collections.abc import Iterator
from dataclasses import dataclass

from aot.variants import Variant, lanes

TRITON_NAMES = {"fp32": "fp32", "tf32": "fp32", "f16": "fp16", "bf16": "bf16"}
ARCHS = (80, 86, 89, 120)  # where tensor cores take operands from registers
DIVISORS = (
    "by_tiles", "by_groups", "by_stride_d", "by_stride_h", "by_stride_w", "by_d", "by_h", "by_w",
)  # fmt: skip


@dataclass(frozen=True)
class Shape:
    pixels: int
    columns: int
    depth: int  # bytes of a block of input channels
    warps: int
    stages: int
    fold: int = 0  # nchw: columns of a channel
    vectors: bool = True  # nhwc: whether output channels are whole vectors

    def label(self, depth: int) -> str:
        kind = f"_f{self.fold}" if self.fold else "" if self.vectors else "_scalar"
        return f"{self.pixels}x{self.columns}x{depth}_w{self.warps}{kind}"


HALVES = (
    Shape(128, 128, 64, 4, 4),
    Shape(128, 64, 64, 4, 5),
    Shape(64, 64, 128, 4, 4, vectors=False),
    Shape(128, 128, 64, 4, 4, 1),
    Shape(128, 128, 64, 4, 4, 2),
    Shape(128, 128, 64, 4, 4, 8),
)
SHAPES = {
    "fp32": (
        Shape(128, 64, 64, 8, 4),
        Shape(64, 64, 64, 4, 4, vectors=False),
        Shape(128, 32, 64, 4, 4),
        Shape(64, 64, 64, 4, 4, 1),
        Shape(128, 32, 64, 4, 4, 1),
        Shape(128, 64, 64, 8, 4, 2),
        Shape(128, 32, 64, 4, 4, 2),
    ),
    "tf32": (
        Shape(128, 128, 64, 4, 4),
        Shape(128, 64, 128, 4, 3),
        Shape(64, 64, 128, 4, 4),
        Shape(64, 64, 128, 4, 4, vectors=False),
        Shape(128, 32, 128, 4, 3),
        Shape(128, 128, 64, 4, 4, 1),
        Shape(64, 64, 128, 4, 4, 1),
        Shape(128, 32, 128, 4, 3, 1),
        Shape(128, 128, 64, 4, 4, 2),
        Shape(128, 64, 128, 4, 3, 2),
        Shape(128, 32, 128, 4, 3, 2),
        Shape(128, 128, 64, 4, 4, 4),
        Shape(128, 128, 64, 4, 4, 8),
    ),
    "f16": HALVES,
    "bf16": HALVES,
}


def variants() -> Iterator[Variant]:
    for math, shapes in SHAPES.items():
        for shape in shapes:
            yield variant(math, shape)
    for math in TRITON_NAMES:
        for layout in ("nchw", "nhwc"):
            yield prepare(math, layout)


def variant(math: str, shape: Shape) -> Variant:
    vector = lanes(math)
    depth = shape.depth * vector // 16
    return Variant(
        "implicit_gemm", math, "nchw" if shape.fold else "nhwc", shape.label(depth), weight="torch",
        warps=shape.warps, stages=shape.stages,
        constants={
            "y_w" if shape.fold else "y_c": 1,
            "PRECISION": math if math in ("fp32", "tf32") else "native",
            "BLOCK_PIXELS": shape.pixels, "BLOCK_OUT": shape.columns, "BLOCK_IN": depth,
            "FOLD": shape.fold, "VECTORS": shape.vectors,
        },
        types={
            **dict.fromkeys(("inputs", "columns"), f"*{TRITON_NAMES[math]}"),
            **dict.fromkeys(("slice_size", *DIVISORS), "i64"),
        },
        divisors={
            **dict.fromkeys(("bias", "y", "inputs", "columns", "phase_size", "tap_size"), 16),
            **dict.fromkeys(("x_n", "x_d", "x_h", "x_w", "row"), vector),
        },
        archs=ARCHS,
    )  # fmt: skip


def prepare(math: str, layout: str) -> Variant:
    vector = lanes(math)
    return Variant(
        "implicit_gemm", math, layout, "64x64_w4", warps=4, kernel="implicit_gemm_prepare",
        weight="torch",
        constants={
            "x_c" if layout == "nhwc" else "x_w": 1, "SPLIT": math == "fp32",
            "LAST": layout == "nhwc", "ROUND": math == "tf32",
            "DEPTH": 8 * vector,
        },
        types=dict.fromkeys(("turned", "packed"), f"*{TRITON_NAMES[math]}"),
        divisors={"turned": 16, "packed": 16, "row": vector},
        archs=ARCHS,
    )  # fmt: skip
