"""Transposed convolution with kernel == stride and no padding; contiguous tensors.

Every input pixel owns a block of outputs that no other reaches, so for one kernel row
[pixels, channels] @ [channels, (kernel column, channel)] holds, read as
[(pixel, kernel column), channel], output rows as they lie in memory. A volume is an image of all
its slices' rows, of which a kernel has kernel_d * kernel_h.

Sums of fp32's and TF32's products are fp32 additions of blocks of BLOCK_IN channels; other sums are
the tensor core's. NaN, infinity and the largest numbers do what aot/kernels/precision.py says.
"""

import triton
import triton.language as tl

from aot.kernels.blocks import kernel_row_place, place
from aot.kernels.precision import add_product, split_input, split_weight


@triton.jit
def _step(a, w, acc, PRECISION: tl.constexpr):
    """acc + the product of an input tile [channels, pixels] and a weight tile."""
    a = split_input(tl.trans(a), PRECISION)
    return add_product(a, split_weight(w, PRECISION), acc, PRECISION)


@triton.jit
def pixel_shuffle(
    x,
    weight,  # [groups * group_in, kernel_d, kernel_h, STRIDE, group_out]
    bias,
    y,
    has_bias,
    groups,
    group_in,
    group_out,
    out_h,
    out_w,
    kernel_d,
    kernel_h,
    x_c,  # pixels of an input channel
    y_c,
    PRECISION: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    STRIDE: tl.constexpr,  # along the width
):
    COLUMNS: tl.constexpr = STRIDE * BLOCK_OUT
    dtype: tl.constexpr = y.dtype.element_ty
    # Programs that read the same pixels follow each other.
    program = tl.program_id(0)
    out_tiles = tl.cdiv(group_out, BLOCK_OUT)
    first_out = program % out_tiles * BLOCK_OUT
    program = program // out_tiles
    kernel_rows = kernel_d * kernel_h
    row = program % kernel_rows
    program = program // kernel_rows
    pixel_tiles = tl.cdiv(x_c, BLOCK_PIXELS)
    first_pixel = program % pixel_tiles * BLOCK_PIXELS
    program = program // pixel_tiles
    group = program % groups
    n = (program // groups).to(tl.int64)

    k = tl.arange(0, BLOCK_IN)
    pixel = first_pixel + tl.arange(0, BLOCK_PIXELS)
    x += (n * groups + group) * group_in * x_c
    x_tile = (k * x_c)[:, None] + pixel[None, :]
    in_image = (pixel < x_c)[None, :]
    column = tl.arange(0, COLUMNS)
    out = first_out + column % BLOCK_OUT
    w_row = kernel_rows * STRIDE * group_out  # of an input channel
    weight += (group * group_in).to(tl.int64) * w_row + row * (STRIDE * group_out)
    w_tile = (k * w_row)[:, None] + (column // BLOCK_OUT * group_out + out)[None, :]
    is_out = (out < group_out)[None, :]

    acc = tl.zeros((BLOCK_PIXELS, COLUMNS), tl.float32)
    if PRECISION == "native":
        # Loads that feed a product as they are, the compiler pipelines.
        for c in range(0, group_in, BLOCK_IN):
            left = k < group_in - c
            step = tl.cast(c, tl.int64)
            w = tl.load(weight + step * w_row + w_tile, mask=is_out & left[:, None], other=0.0)
            a = tl.load(x + step * x_c + x_tile, mask=in_image & left[:, None], other=0.0)
            acc = _step(a, w, acc, PRECISION)
    else:
        w = tl.load(weight + w_tile, mask=is_out & (k < group_in)[:, None], other=0.0)
        a = tl.load(x + x_tile, mask=in_image & (k < group_in)[:, None], other=0.0)
        for c in range(BLOCK_IN, group_in, BLOCK_IN):
            left = k < group_in - c
            step = tl.cast(c, tl.int64)
            w_next = tl.load(weight + step * w_row + w_tile, mask=is_out & left[:, None], other=0.0)
            a_next = tl.load(x + step * x_c + x_tile, mask=in_image & left[:, None], other=0.0)
            acc = _step(a, w, acc, PRECISION)
            w = w_next
            a = a_next
        acc = _step(a, w, acc, PRECISION)
    acc = tl.reshape(acc, (BLOCK_PIXELS * STRIDE, BLOCK_OUT))

    out = first_out + tl.arange(0, BLOCK_OUT)
    if has_bias != 0:
        b = tl.load(bias + group * group_out + out, mask=out < group_out, other=0.0)
        acc += b.to(tl.float32)[None, :]
    flat = first_pixel * STRIDE + tl.arange(0, BLOCK_PIXELS * STRIDE)
    y_tile = place(flat, out_h, out_w, kernel_d, kernel_h)
    y += ((n * groups + group) * group_out + first_out) * y_c
    y += kernel_row_place(row, out_h, out_w, kernel_h)
    stored = (flat < x_c * STRIDE)[:, None] & (out < group_out)[None, :]
    tl.store(
        y + (y_tile[:, None] + (tl.arange(0, BLOCK_OUT) * y_c)[None, :]), acc.to(dtype), mask=stored
    )
