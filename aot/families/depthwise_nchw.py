"""Few channels a group, contiguous."""

from collections.abc import Iterator

from aot.tiles import ACCURATE_MATHS
from aot.variants import Variant, lanes

DIVISORS = ("by_programs", "by_programs_w", "by_programs_h", "by_channels")

# (stride, taps of a phase, padding modulo the stride) along the row, known when compiled: k3s1;
# k3s2p1 and k4s2p1; k5s2p2; k8s4p2.
KNOWN = ((1, 3, 0), (2, 2, 1), (2, 3, 0), (4, 2, 2))


def variants() -> Iterator[Variant]:
    for math in ACCURATE_MATHS:
        for known in KNOWN[1:2] if math == "bf16" else KNOWN:
            yield _variant(math, *known, aligned=True)
        for stride in (0, 2):
            yield _variant(math, stride)


def _variant(
    math: str, stride: int, taps: int = 0, shift: int = 0, *, aligned: bool = False
) -> Variant:
    pixels = max(1, lanes(math) // stride) if stride else 1
    constants = {"STRIDE": stride, "PIXELS": pixels, "ROWS": 2, "TAPS": taps, "SHIFT": shift,
                 "THREADS": 64, "ALIGNED": aligned}  # fmt: skip
    known = f"s{stride}t{taps}p{shift}" if taps else f"s{stride}" if stride else "any"
    return Variant(
        "depthwise_nchw", math, "nchw", known + ("_a16" if aligned else ""), warps=1,
        constants={**constants, "WARPS": 1, **({"weight_w": 1} if stride else {})},
        traits={name.lower(): value for name, value in constants.items()},
        weight="torch",
        types=dict.fromkeys(DIVISORS, "i64"),
        divisors={"y": 16, "out_w": lanes(math)} if aligned else {},
        registers=(96, 128) if stride else (),
    )  # fmt: skip
