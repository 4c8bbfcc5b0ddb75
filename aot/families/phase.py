"""The general kernel: one output phase a program."""

from collections.abc import Iterator

from aot.tiles import STRIDES, Tile, channel_vectors
from aot.variants import Variant


def variants() -> Iterator[Variant]:
    for math in ("fp32", "tf32", "f16", "bf16"):
        # fp32 tensors are split or converted in registers: a smaller tile, or they spill.
        tile = Tile(64, 32, 16) if math in ("fp32", "tf32") else Tile(64, 64, 32)
        for layout in ("nchw", "nhwc"):
            yield _variant(math, layout, tile, 4)
            if math == "fp32":  # which halo does not multiply as
                yield _variant(math, layout, tile, 4, aligned=True)
                yield _variant(math, layout, Tile(128, 64, 16), 8, aligned=True)
            if math != "tf32":  # fp32's serves it too
                yield _variant(math, layout, Tile(64, 32, 16), 4, wide=True)


def _variant(
    math: str, layout: str, tile: Tile, warps: int, *, aligned: bool = False, wide: bool = False
) -> Variant:
    innermost = ("x_c", "y_c") if layout == "nhwc" else ("x_w", "y_w")
    suffix = "_a16" if aligned else "_i64" if wide else ""
    return Variant(
        "phase", math, layout, f"{tile.label}_w{warps}{suffix}", warps=warps,
        stages=2 if wide else 3,
        constants={**dict.fromkeys(innermost, 1), **tile.constants(math)},
        traits={"aligned": aligned, "wide": wide},
        types=dict.fromkeys(STRIDES, "i64") if wide else {},
        divisors=channel_vectors(math, layout) if aligned else {},
        registers=(128, 168) if aligned and warps == 4 else (),  # four programs a multiprocessor
    )  # fmt: skip
