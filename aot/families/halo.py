"""Deep layers on sm_90: TMA and wgmma, an input tile is read once for all its products."""

from collections.abc import Iterator
from dataclasses import dataclass

from triton.experimental.gluon import language as gl

from aot.variants import Variant, lanes

KINDS = ("nhwc", "rows", "lines", "fold")
TRITON_NAMES = {"tf32": "fp32", "f16": "fp16", "bf16": "bf16"}
SWIZZLE = 128  # bytes that a product's input channels have


@dataclass(frozen=True)
class Shape:
    kind: str
    pixels: int
    columns: int
    phases: tuple[int, int]  # that a tile computes: rows, columns
    periods: int  # KiB for boxes of the input
    stages: int  # of weights in flight,
    rows: int = 1  # blocks of weights that come together, where a product takes 64 clocks
    lag: int = 1  # products in flight while the next is prepared: more where they are short
    maths: tuple[str, ...] = ("tf32", "f16")


ALL = ("tf32", "f16", "bf16")
SHAPES = (
    Shape("nhwc", 128, 128, (1, 2), 80, 7, maths=ALL),
    Shape("nhwc", 128, 128, (1, 1), 80, 8),
    Shape("nhwc", 256, 64, (1, 2), 112, 8, lag=2, maths=ALL),
    Shape("nhwc", 256, 64, (1, 1), 112, 8, lag=2),
    Shape("nhwc", 128, 64, (1, 1), 96, 10, lag=2, maths=ALL),
    Shape("nhwc", 256, 32, (1, 1), 112, 16, lag=3),
    Shape("rows", 128, 128, (1, 2), 80, 8),
    Shape("rows", 256, 64, (1, 2), 112, 10, maths=ALL),
    Shape("rows", 128, 64, (1, 1), 96, 10, lag=2, maths=ALL),
    Shape("lines", 256, 64, (1, 1), 96, 8, lag=2),
    Shape("lines", 256, 128, (1, 1), 96, 4),
    Shape("fold", 128, 256, (1, 1), 64, 4),
    Shape("fold", 128, 128, (1, 1), 64, 8, maths=ALL),
    Shape("fold", 128, 32, (2, 1), 112, 8, rows=2),
)


def variants() -> Iterator[Variant]:
    for math in TRITON_NAMES:
        for shape in SHAPES:
            if math in shape.maths:
                yield _variant(math, shape)
        yield _prepare(math, "nchw")
        yield _prepare(math, "nhwc")


def _descriptor(math: str, block: list[int], swizzle: int) -> str:
    layout = gl.NVMMASharedLayout(swizzle, 128 // lanes(math), len(block))
    return f"tensordesc<{TRITON_NAMES[math]}[{','.join(map(str, block))}],{layout!r}>"


def _variant(math: str, shape: Shape) -> Variant:
    depth = SWIZZLE * lanes(math) // 16
    # 16-bit operands may have either order in shared memory: they are read as a layer keeps them.
    straight = shape.kind == "nhwc" and math in ("f16", "bf16")
    columns = [1, depth, 1, shape.columns] if straight else [1, 1, shape.columns, depth]
    swizzle = min(SWIZZLE, shape.columns * 16 // lanes(math)) if straight else SWIZZLE
    kind = "" if shape.kind == "nhwc" else f"{shape.kind}_"
    height, width = shape.phases
    return Variant(
        "halo", math, "nhwc" if shape.kind == "nhwc" else "nchw",
        f"{kind}{shape.pixels}x{shape.columns}_p{height}{width}", warps=8, workers=4,
        weight="channels_last" if straight else "torch",
        constants={
            "y_c" if shape.kind == "nhwc" else "y_w": 1,
            "KIND": shape.kind, "BLOCK_PIXELS": shape.pixels, "BLOCK_OUT": shape.columns,
            "BLOCK_K": depth, "GROUP_H": height, "GROUP_W": width, "PERIODS": shape.periods,
            "STAGES": shape.stages, "ROWS": shape.rows, "LAG": shape.lag, "STRAIGHT": straight,
        },
        traits={"kind": KINDS.index(shape.kind)},
        types={
            "inputs": _descriptor(math, [1, 1, 8, 1, depth], SWIZZLE),
            "columns": _descriptor(math, columns, swizzle),
        },
        divisors={"bias": 16, "y": 16},
        archs=(90,),
    )  # fmt: skip


def _prepare(math: str, layout: str) -> Variant:
    vector = lanes(math)
    return Variant(
        "halo", math, layout, "64x64_w4", warps=4, kernel="halo_prepare", weight="torch",
        constants={"x_c" if layout == "nhwc" else "x_w": 1, "BLOCK": 64, "LAST": layout == "nhwc"},
        types=dict.fromkeys(("turned", "packed"), f"*{TRITON_NAMES[math]}"),
        divisors={"turned": 16, "packed": 16, "row": vector},
        archs=(90,),
    )  # fmt: skip
