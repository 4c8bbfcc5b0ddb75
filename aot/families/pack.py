"""Copies of weights into the order that other kernels read; a tile is taps x output channels."""

from collections.abc import Iterator

from aot.variants import Variant

STRIDES = ("weight_in", "weight_out", "weight_d", "weight_h", "weight_w")


def variants() -> Iterator[Variant]:
    for math, pointer in (("fp32", "*fp32"), ("f16", "*fp16"), ("bf16", "*bf16")):
        yield Variant(
            "pack", math, "nhwc", "16x64_w4", warps=4, weight="torch",
            constants={"BLOCK_TAPS": 16, "BLOCK_OUT": 64},
            types={"packed": pointer, **dict.fromkeys(STRIDES, "i64")},
        )  # fmt: skip
