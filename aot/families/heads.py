"""Few output channels a group: the input read once, by tensor cores."""

from collections.abc import Iterator
from dataclasses import dataclass

from aot.variants import Variant, lanes


@dataclass(frozen=True)
class Shape:
    columns: int
    more: int
    pixels: int
    into: int
    room: int  # lines of weights: a power of two


FP32 = (
    Shape(8, 0, 128, 32, 128),
    Shape(16, 0, 128, 32, 128),
    Shape(16, 8, 128, 32, 256),
    Shape(32, 8, 64, 32, 256),
)
HALF = (
    Shape(8, 0, 128, 64, 128),
    Shape(16, 8, 128, 64, 256),
)
SHAPES = {"fp32": FP32, "f16": HALF, "bf16": HALF[1:]}


def variants() -> Iterator[Variant]:
    for math, shapes in SHAPES.items():
        for shape in shapes:
            yield _variant(math, "nchw", shape)
            yield _variant(math, "nhwc", shape, aligned=True)
    yield _variant("fp32", "nhwc", FP32[2])


def _variant(math: str, layout: str, shape: Shape, *, aligned: bool = False) -> Variant:
    last = layout == "nhwc"
    steps = ("x_n", "x_h", "x_w", "group_in", "slice_in")
    label = f"{shape.pixels}x{shape.columns + shape.more}"
    return Variant(
        "heads", math, layout, label + "_a16" * aligned, warps=4, weight="torch",
        constants={
            **({"x_c": 1, "y_c": 1} if last else {"x_w": 1, "y_w": 1}),
            "PRECISION": "fp32" if math == "fp32" else "native",
            "COLUMNS": shape.columns, "MORE": shape.more, "BLOCK_PIXELS": shape.pixels,
            "BLOCK_IN": shape.into, "ROOM": shape.room, "WARPS": 4, "LAST": last,
        },
        traits={"aligned": aligned},
        types={"partial": "*fp32"},
        registers=(255,),
        divisors={"x": 16, **dict.fromkeys(steps, lanes(math))} if aligned else {},
    )  # fmt: skip
