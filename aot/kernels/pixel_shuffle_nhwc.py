"""Transposed convolution with kernel == stride and no padding; channels_last tensors.

An input pixel's outputs of one kernel row lie together in memory, kernel column after kernel
column, so [pixels, channels] @ [channels, (kernel column, channel)] is stored as it is: rows of
kernel_w * group_out numbers (with groups, one for each kernel column). A volume is an image of all
its slices' rows, of which a kernel has kernel_d * kernel_h; see aot/kernels/blocks.py.

Sums of fp32's and TF32's products are fp32 additions of blocks of BLOCK_IN channels; other sums are
the tensor core's. NaN, infinity and the largest numbers do what aot/kernels/precision.py says.
"""

import triton
import triton.language as tl

from aot.kernels.precision import add_product, split_input, split_weight


@triton.jit
def _step(a, w, acc, PRECISION: tl.constexpr):
    return add_product(split_input(a, PRECISION), split_weight(w, PRECISION), acc, PRECISION)


@triton.jit
def pixel_shuffle_nhwc(
    x,
    weight,  # [groups * group_in, kernel_d, kernel_h, kernel_w, group_out]
    bias,
    y,
    has_bias,
    groups,
    group_in,
    group_out,
    in_h,
    in_w,
    out_h,
    out_w,
    kernel_d,
    kernel_h,
    kernel_w,
    pixels,  # of all images
    PRECISION: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_IN: tl.constexpr,
):
    dtype: tl.constexpr = y.dtype.element_ty
    VECTOR: tl.constexpr = 128 // dtype.primitive_bitwidth
    # Programs that read the same pixels follow each other.
    columns = kernel_w * group_out
    program = tl.program_id(0)
    column_tiles = tl.cdiv(columns, BLOCK_OUT)
    first_column = program % column_tiles * BLOCK_OUT
    program = program // column_tiles
    kernel_rows = kernel_d * kernel_h
    row = program % kernel_rows
    program = program // kernel_rows
    group = program % groups
    first_pixel = program // groups * BLOCK_PIXELS

    k = tl.arange(0, BLOCK_IN)
    in_c = groups * group_in
    pixel = tl.arange(0, BLOCK_PIXELS)
    x += first_pixel.to(tl.int64) * in_c + group * group_in
    x_tile = (pixel * in_c)[:, None] + k[None, :]
    in_image = (first_pixel + pixel < pixels)[:, None]
    column = first_column + tl.arange(0, BLOCK_OUT)
    is_column = (column < columns)[None, :]
    w_channel = kernel_rows * columns
    weight += (group * group_in).to(tl.int64) * w_channel + row * columns
    w_tile = (k * w_channel)[:, None] + column[None, :]

    acc = tl.zeros((BLOCK_PIXELS, BLOCK_OUT), tl.float32)
    if PRECISION == "native":
        # Loads that feed a product as they are, the compiler pipelines.
        for c in range(0, group_in, BLOCK_IN):
            left = k < group_in - c
            w_step = weight + tl.cast(c, tl.int64) * w_channel
            w = tl.load(w_step + w_tile, mask=is_column & left[:, None], other=0.0)
            a = tl.load(x + c + x_tile, mask=in_image & left[None, :], other=0.0)
            acc = _step(a, w, acc, PRECISION)
    else:
        w = tl.load(weight + w_tile, mask=is_column & (k < group_in)[:, None], other=0.0)
        a = tl.load(x + x_tile, mask=in_image & (k < group_in)[None, :], other=0.0)
        for c in range(BLOCK_IN, group_in, BLOCK_IN):
            left = k < group_in - c
            w_step = weight + tl.cast(c, tl.int64) * w_channel
            w_next = tl.load(w_step + w_tile, mask=is_column & left[:, None], other=0.0)
            a_next = tl.load(x + c + x_tile, mask=in_image & left[None, :], other=0.0)
            acc = _step(a, w, acc, PRECISION)
            w = w_next
            a = a_next
        acc = _step(a, w, acc, PRECISION)

    tap = column // group_out
    channel = group * group_out + column - tap * group_out
    if has_bias != 0:
        b = tl.load(bias + channel, mask=column < columns, other=0.0)
        acc += b.to(tl.float32)[None, :]

    # Output rows of the first pixel, then of the others from there on.
    out_c = groups * group_out
    line = out_w * out_c
    first_row = first_pixel // in_w
    first_slice = first_row // in_h
    skipped = (kernel_d - 1) * out_h  # rows of other depths between two slices
    origin = first_row.to(tl.int64) * kernel_h + first_slice.to(tl.int64) * skipped
    origin += row // kernel_h * out_h + row % kernel_h
    y += origin * line
    pixel += first_pixel
    input_row = pixel // in_w
    y_row = (input_row - first_row) * kernel_h
    if kernel_d > 1:
        y_row += (input_row // in_h - first_slice) * skipped
    y_pixel = y_row * line + (pixel - input_row * in_w) * (kernel_w * out_c)
    y_column = tl.max_contiguous(tl.multiple_of(tap * out_c + channel, VECTOR), VECTOR)
    tl.store(y + (y_pixel[:, None] + y_column[None, :]), acc.to(dtype), mask=in_image & is_column)
