"""kernel == stride with up to 32 input channels: programs stay and keep their weights."""

from collections.abc import Iterator
from itertools import product

from aot.tiles import ACCURATE_MATHS, Tile, output_vectors
from aot.variants import Variant, lanes


def variants() -> Iterator[Variant]:
    for math, stride in product(ACCURATE_MATHS, (2, 4, 8)):
        # Neighbouring pixels that a thread has; fp32's pieces need registers, hence half.
        pixels = 2 if math == "fp32" else 4
        yield _variant(math, stride, min(lanes(math), pixels * stride), aligned=True)


def _variant(math: str, stride: int, vector: int, *, aligned: bool) -> Variant:
    warps, held = (8, 4) if math == "fp32" else (4, 8)
    tile = Tile(128, 64 // stride, 32)
    suffix = "_a16" if aligned else ""
    pixels = {"x": 16, "x_c": lanes(math)} if aligned else {}
    return Variant(
        "pixel_shuffle_shallow", math, "nchw",
        f"{tile.label}_s{stride}t{stride}v{vector}_w{warps}{suffix}", warps=warps,
        constants={**tile.constants(math), "WARPS": warps, "STRIDE": stride, "HELD": held,
                   "VECTOR": vector},
        traits={"aligned": aligned},
        divisors={**pixels, **output_vectors(vector)},
        registers=(128, 168),
    )  # fmt: skip
