"""kernel == stride without padding: one matrix product a kernel row, whose rows are outputs."""

from collections.abc import Iterator
from itertools import product

from aot.tiles import Tile, channel_vectors, output_vectors
from aot.variants import Variant, lanes


def variants() -> Iterator[Variant]:
    for math, stride in product(("fp32", "tf32", "f16", "bf16"), (2, 4)):
        native = math in ("f16", "bf16")
        # As many columns of a wider stride belong to fewer channels. fp32 tensors have fewer pixels
        # and input channels where they are not aligned, or they spill.
        plain = Tile(128, 64 // stride, 32) if native else Tile(64, 64 // stride, 16)
        yield _variant(math, plain, stride, 4, vector=stride)
        for columns in (64, 128) if native and stride == 2 else (64,):
            tile = Tile(128, columns // stride, 32)
            vector = max(stride, lanes(math))
            yield _variant(math, tile, stride, 4 if native else 8, vector=vector, a16=True)


def _variant(
    math: str, tile: Tile, stride: int, warps: int, *, vector: int, a16: bool = False
) -> Variant:
    aligned = {**channel_vectors(math, "nchw"), "x": 16, "x_c": lanes(math)} if a16 else {}
    return Variant(
        "pixel_shuffle", math, "nchw",
        f"{tile.label}_s{stride}t{stride}v{vector}_w{warps}{'_a16' if a16 else ''}",
        warps=warps, stages=3 if math in ("f16", "bf16") else 1,
        constants={**tile.constants(math), "STRIDE": stride},
        traits={"aligned": a16, "vector": vector},
        divisors={**aligned, **output_vectors(vector)},
        registers=(128,) if warps == 8 else (),  # two programs a multiprocessor
    )  # fmt: skip
