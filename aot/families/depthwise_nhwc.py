"""Few channels a group, channels_last."""

from collections.abc import Iterator

from aot.tiles import ACCURATE_MATHS
from aot.variants import Variant

DIVISORS = ("by_programs", "by_programs_w", "by_programs_h", "by_kernel_w")

# (outputs that share inputs, taps of an output) along the row: k3s2 and k4s2; k3s1; k5s2.
KNOWN = ((2, 2), (1, 3), (2, 3))


def variants() -> Iterator[Variant]:
    for math in ACCURATE_MATHS:
        for known in KNOWN[:1] if math == "bf16" else KNOWN:
            yield _variant(math, 4, *known)
        if math != "bf16":
            yield _variant(math, 4, 2, 0)
            yield _variant(math, 1, 2, 2)
        for vector in (4, 1):
            yield _variant(math, vector, 1, 0, sliding=False)


def _registers(math: str, flat: bool, sliding: bool, taps: int) -> tuple[int, ...]:
    """Limits that leave room for five programs a multiprocessor, or four; or that do not spill."""
    if flat and (sliding or math != "fp32"):
        return (96,)
    return (128, 168) if taps > 2 else (128,)


def _variant(math: str, vector: int, columns: int, taps: int, *, sliding: bool = True) -> Variant:
    flat = vector == 1  # threads lie along positions and channels at once
    constants = {
        "PIXELS": 4, "ROWS": 2 if sliding and not flat else 1, "COLUMNS": columns,
        "TAPS": taps, "SLIDING": sliding, "POSITIONS": 128 if flat else 16,
        "CHANNELS": 1 if flat else 32, "VECTOR": vector, "ROOM": 64 if flat else 128,
    }  # fmt: skip
    label = f"{'flat' if flat else 'v4'}_{f'x{columns}t{taps}' if sliding else 'any'}"
    channels = ("in_channels", "out_channels", "tile_c")
    return Variant(
        "depthwise_nhwc", math, "nhwc", label, warps=4,
        constants={**constants, "WARPS": 4, **({"weight_w": 1} if sliding else {})},
        traits={name.lower(): value for name, value in constants.items()},
        weight="torch",
        types=dict.fromkeys(DIVISORS, "i64"),
        divisors={} if flat else {"x": 16, "y": 16, **dict.fromkeys(channels, vector)},
        registers=_registers(math, flat, sliding, taps),
    )  # fmt: skip
