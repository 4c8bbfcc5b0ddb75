"""Inputs with one element per axis: a matrix product with the weight as torch keeps it."""

from collections.abc import Iterator

from aot.variants import Variant

# Images and columns of a program, and input channels of a step.
TILES = ((1, 128, 16), (32, 128, 8))


def variants() -> Iterator[Variant]:
    for layout in ("nchw", "nhwc"):  # which the kernel does not mind: the images are the same
        for math in ("fp32", "f16", "bf16"):
            for images, columns, into in TILES:
                yield Variant(
                    "point", math, layout, f"{images}x{columns}x{into}", warps=4, weight="torch",
                    constants={
                        "IMAGES": images, "COLUMNS": columns, "BLOCK_IN": into,
                        "HELD_IN": 256 if images <= 4 else 64, "WARPS": 4,
                    },
                    types={"partial": "*fp32"},
                )  # fmt: skip
            yield Variant(
                "point", math, layout, "1024", kernel="point_reduce", warps=4, weight="torch",
                constants={"BLOCK": 1024}, types={"partial": "*fp32"},
            )  # fmt: skip
