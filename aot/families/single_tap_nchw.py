"""At most one tap an output, contiguous layout: rows of outputs are put together on chip."""

from collections.abc import Iterator

from aot.tiles import ACCURATE_MATHS, Tile
from aot.variants import Variant

# By stride and taps: the gap between the rows of the shared image, and how much of one is stored at
# once. The pitch, pixels * stride + gap, exceeds what is stored at once by a power of two.
WIDE_IMAGES = {
    (2, 2): (128, 128), (3, 3): (128, 256), (4, 4): (128, 128), (5, 3): (128, 256),
    (5, 5): (128, 256),
}  # fmt: skip
NARROW_IMAGES = {(2, 2): (128, 128), (4, 4): (128, 128), (5, 3): (64, 128)}
IMAGES = ((Tile(128, 8, 32), WIDE_IMAGES), (Tile(64, 8, 64), NARROW_IMAGES))

# Pixels copied at once: four bytes, the least that can be copied asynchronously. And outputs stored
# whole: a sector.
INPUT_AND_OUTPUT = {"fp32": (1, 8), "f16": (2, 16), "bf16": (2, 16)}
# Not copied so, and half a sector, which planes of half as many channels share: odd rows of fp16.
ODD_ROWS = (0, 8)


def variants() -> Iterator[Variant]:
    for math in ACCURATE_MATHS:
        for tile, images in IMAGES:
            forms = [INPUT_AND_OUTPUT[math]]
            if math == "f16" and images is WIDE_IMAGES:
                forms.append(ODD_ROWS)
            for (stride, taps), (gap, columns) in images.items():
                for copied, sector in forms:
                    sizes = {"GAP": gap, "COLUMNS": columns, "COPIED": copied,
                             **tile.constants(math), "WARPS": 4, "STRIDE": stride,
                             "TAPS": taps, "SECTOR": sector}  # fmt: skip
                    yield _variant(math, tile, sizes)


def _variant(math: str, tile: Tile, sizes: dict[str, int | bool | str]) -> Variant:
    pairs = sizes["COPIED"] == 2
    divisors = {"x": 4, **dict.fromkeys(("in_w", "x_c", "first_w", "tile_w"), 2)} if pairs else {}
    shape = f"s{sizes['STRIDE']}t{sizes['TAPS']}v{sizes['SECTOR']}"
    return Variant(
        "single_tap_nchw", math, "nchw", f"{tile.label}_{shape}_w4{'_a16' if pairs else ''}",
        warps=4, constants=sizes,
        types=dict.fromkeys(("residues_h", "residues_w", "joined_h"), "i64"),
        divisors={"y": 16, **divisors},
        # Programs a multiprocessor: five, four or three.
        registers=(128, 168) if math == "fp32" else (96, 128, 168),
    )  # fmt: skip
