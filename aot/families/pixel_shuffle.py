"""kernel == stride without padding: one matrix product a kernel row, whose rows are outputs."""

from collections.abc import Iterator
from itertools import product

from aot.tiles import Tile, channel_vectors, output_vectors
from aot.variants import Variant, lanes


def variants() -> Iterator[Variant]:
    for math, stride in product(("fp32", "tf32", "f16", "bf16"), (1, 2, 4, 8)):
        native = math in ("f16", "bf16")
        into, stages = (32, 3) if native else (16, 1)
        if stride == 8:  # few channels: vectors never pay, nor do less accurate products
            if math != "tf32":
                tile = Tile(128 if native else 64, 8, into)
                yield _variant(math, tile, stride, stages, vector=8)
            continue
        for columns in (64, 128) if native and stride == 2 else (64,):
            # As many columns of a wider stride belong to fewer channels.
            tile = Tile(128, columns // stride, into)
            # fp32 tensors have fewer pixels where they are not aligned, or they spill.
            plain = tile if native else Tile(64, tile.out, into)
            if columns == 64:
                yield _variant(math, plain, stride, stages, vector=stride)
            yield _variant(math, tile, stride, stages, vector=max(stride, lanes(math)), a16=True)


def _variant(
    math: str, tile: Tile, stride: int, stages: int, *, vector: int, a16: bool = False
) -> Variant:
    aligned = {**channel_vectors(math, "nchw"), "x": 16, "x_c": lanes(math)} if a16 else {}
    return Variant(
        "pixel_shuffle", math, "nchw",
        f"{tile.label}_s{stride}t{stride}v{vector}_w4{'_a16' if a16 else ''}",
        warps=4, stages=stages,
        constants={**tile.constants(math), "STRIDE": stride},
        traits={"aligned": a16, "vector": vector},
        divisors={**aligned, **output_vectors(vector)},
    )  # fmt: skip
