"""A weight in the memory order that the other kernels read."""

import triton
import triton.language as tl


@triton.jit
def pack(
    weight,  # [in_channels, group_out, kernel_d, kernel_h, kernel_w] with any strides
    packed,  # [in_channels, kernel_d, kernel_h, kernel_w, group_out], dense
    group_out,
    kernel_d,
    kernel_h,
    kernel_w,
    weight_in,
    weight_out,
    weight_d,
    weight_h,
    weight_w,
    BLOCK_TAPS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
):
    taps = kernel_d * kernel_h * kernel_w
    out_tiles = tl.cdiv(group_out, BLOCK_OUT)
    tap_tiles = tl.cdiv(taps, BLOCK_TAPS)
    program = tl.program_id(0)
    out = program % out_tiles * BLOCK_OUT + tl.arange(0, BLOCK_OUT)[None, :]
    program = program // out_tiles
    tap = program % tap_tiles * BLOCK_TAPS + tl.arange(0, BLOCK_TAPS)[:, None]
    row = (program // tap_tiles).to(tl.int64)
    inside = (tap < taps) & (out < group_out)
    # Loads are strided, stores are not; a tile's loads fill whole lines, which L1 keeps.
    tap_h = tap // kernel_w
    of_tap = tap_h // kernel_h * weight_d + tap_h % kernel_h * weight_h + tap % kernel_w * weight_w
    value = tl.load(weight + row * weight_in + out * weight_out + of_tap, mask=inside)
    tl.store(packed + (row * taps + tap) * group_out + out, value, mask=inside)
