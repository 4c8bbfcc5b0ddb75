"""kernel == stride without padding, channels_last: one matrix product a kernel row, as it lies."""

from collections.abc import Iterator

from aot.tiles import Tile, channel_vectors
from aot.variants import Variant

TILES = {
    "fp32": ((Tile(64, 64, 32), 4), (Tile(128, 64, 32), 8)),
    "tf32": ((Tile(64, 64, 32), 4), (Tile(128, 64, 32), 8)),
    "f16": ((Tile(128, 128, 64), 8), (Tile(128, 64, 64), 4), (Tile(64, 64, 64), 4)),
    "bf16": ((Tile(128, 128, 64), 8), (Tile(128, 64, 64), 4), (Tile(64, 64, 64), 4)),
}


def variants() -> Iterator[Variant]:
    for math, tiles in TILES.items():
        for tile, warps in tiles:
            yield Variant(
                "pixel_shuffle_nhwc", math, "nhwc", f"{tile.label}_w{warps}_a16", warps=warps,
                stages=3 if math in ("f16", "bf16") else 1, constants=tile.constants(math),
                divisors=channel_vectors(math, "nhwc"),
            )  # fmt: skip
