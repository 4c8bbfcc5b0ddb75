"""At most one tap an output, channels_last."""

from collections.abc import Iterator

from aot.tiles import ACCURATE_MATHS, Tile, channel_vectors
from aot.variants import Variant


def variants() -> Iterator[Variant]:
    for math in ACCURATE_MATHS:
        yield _variant(math, Tile(64, 64, 32), deep=False)
        yield _variant(math, Tile(64, 64, 64), deep=False)
        if math != "fp32":
            yield _variant(math, Tile(128, 64, 32), deep=True)


def _variant(math: str, tile: Tile, *, deep: bool) -> Variant:
    """`deep`: takes more input channels than one step's."""
    return Variant(
        "single_tap_nhwc", math, "nhwc", f"{tile.label}_w4_a16", warps=4, stages=3,
        constants={**tile.constants(math), "WARPS": 4, "DEEP": deep},
        types=dict.fromkeys(("residues_h", "residues_w"), "i64"),
        divisors=channel_vectors(math, "nhwc"),
        # Programs a multiprocessor: four; or six or five.
        registers=(128,) if math == "fp32" else (80, 96),
    )  # fmt: skip
