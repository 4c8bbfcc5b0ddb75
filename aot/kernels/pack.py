"""A weight in the memory order that the other kernels read."""

import triton
import triton.language as tl


@triton.jit
def pack(
    x,  # [groups * group_in, group_out, kernel_h, kernel_w] with any strides
    y,  # [groups * group_in, kernel_h, kernel_w, group_out], dense
    group_out,
    kernel_h,
    kernel_w,
    x_n,
    x_c,
    x_h,
    x_w,
    BLOCK_TAPS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
):
    taps = kernel_h * kernel_w
    out_tiles = tl.cdiv(group_out, BLOCK_OUT)
    tap_tiles = tl.cdiv(taps, BLOCK_TAPS)
    program = tl.program_id(0)
    out = program % out_tiles * BLOCK_OUT + tl.arange(0, BLOCK_OUT)[None, :]
    program = program // out_tiles
    tap = program % tap_tiles * BLOCK_TAPS + tl.arange(0, BLOCK_TAPS)[:, None]
    row = (program // tap_tiles).to(tl.int64)
    inside = (tap < taps) & (out < group_out)
    # Loads are strided, stores are not; a tile's loads fill whole lines, which L1 keeps.
    source = row * x_n + out * x_c + tap // kernel_w * x_h + tap % kernel_w * x_w
    value = tl.load(x + source, mask=inside)
    tl.store(y + (row * taps + tap) * group_out + out, value, mask=inside)
