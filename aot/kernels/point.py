"""Transposed convolution of inputs with one element per axis: a product with a cropped weight.

y[n, co, o] = bias[co] + sum_ci x[n, ci] w[ci, co, (o + padding) / dilation], where that is a tap of
each axis. The weight is most of the memory that is read, and is read as torch keeps it: a column is
an output of an image, numbered in the weight's memory order; a thread has some of them for IMAGES
images, so that a weight goes from memory to where it is multiplied, and meets the inputs of all
images from shared memory. Ordinary multiply-adds are as exact as torch's and are no bottleneck
where memory is one. Where there are few programs, each sums a slice of the input channels into
`partial`, and `point_reduce` adds the slices in their order: equal bits at each run.

Measured on an H200 (fp32, us; cuDNN in benchmark mode, whose products are TF32's where marked *):
layer              images  channels    kernel  cuDNN contiguous, channels_last    ours  floor
dcgan_g0               64  100-512     4x4     38.5*, 19.7*                        8.3    1.2
pix2pix_innermost       1  512-512     2x2     25.1                                7.3    1.0
wav2lip_d1            128  1024-512    3x3     94.3*, 61.5*                       55.4    4.9
worldmodels_d1         32  1024-128    5x5     89.2*                              17.4    3.1
deconvnet_fc6           1  4096-512    7x7     322                               101     93
"""

import triton
import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from aot.kernels.multiply import add_products, rows


@gluon.jit
def _tap(o, padding, dilation, kernel):
    """The tap of output `o` on an axis, and whether there is one."""
    reach = o + padding
    tap = reach // dilation
    return tap, (tap * dilation == reach) & (tap < kernel)


@gluon.jit
def _weights(w, inside, left, weight_in, LOAD: tl.constexpr):
    """[columns, channels in] in fp32; `left` channels are there."""
    BLOCK_IN: gl.constexpr = LOAD.size_per_thread[1]
    k = gl.arange(0, BLOCK_IN, layout=gl.SliceLayout(0, LOAD))
    source = w[:, None] + (k * weight_in)[None, :]
    if left >= BLOCK_IN:
        value = gl.load(source, mask=inside[:, None], other=0.0)
    else:
        value = gl.load(source, mask=inside[:, None] & (k < left)[None, :], other=0.0)
    return value.to(gl.float32)


@gluon.jit
def point(
    x,  # [batch, groups * group_in]
    weight,
    bias,
    y,
    partial,  # [slices, ...] as `y`, in fp32; where `slices` > 1
    has_bias,
    batch,
    groups,
    group_in,
    group_out,
    in_channels,
    out_d,
    out_h,
    out_w,
    kernel_d,
    kernel_h,
    kernel_w,
    padding_d,
    padding_h,
    padding_w,
    dilation_d,
    dilation_h,
    dilation_w,
    weight_in,
    weight_out,
    weight_d,
    weight_h,
    weight_w,
    y_n,
    y_c,
    y_d,
    y_h,
    y_w,
    columns,  # group_out * out_d * out_h * out_w
    channels_innermost,  # whether neighbouring columns are neighbouring channels
    slice_in,  # input channels of a slice
    slices,
    IMAGES: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    HELD_IN: tl.constexpr,  # input channels of the images in shared memory
    WARPS: tl.constexpr,
):
    LOAD: gl.constexpr = gl.BlockedLayout([1, BLOCK_IN], [32, 1], [WARPS, 1], [1, 0])
    ROWS: gl.constexpr = rows(IMAGES, WARPS)
    STAGE: gl.constexpr = gl.BlockedLayout([1, 1], [32 // BLOCK_IN, BLOCK_IN], [WARPS, 1], [1, 0])
    LINES: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [1, 0])
    FLAT: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])

    column = gl.program_id(0) * COLUMNS + gl.arange(0, COLUMNS, layout=gl.SliceLayout(1, LOAD))
    group = gl.program_id(1) % groups
    image = gl.program_id(1) // groups * IMAGES
    part = gl.program_id(2)
    points = out_d * out_h * out_w
    run = gl.where(channels_innermost != 0, group_out, points)
    major = column // run
    minor = column - major * run
    co = gl.where(channels_innermost != 0, minor, major)
    o_w = gl.where(channels_innermost != 0, major, minor)
    o_h = o_w // out_w
    o_w -= o_h * out_w
    o_d = o_h // out_h
    o_h -= o_d * out_h
    inside = column < columns
    tap_w, has_w = _tap(o_w, padding_w, dilation_w, kernel_w)
    tap_h, has_h = _tap(o_h, padding_h, dilation_h, kernel_h)
    tap_d, has_d = _tap(o_d, padding_d, dilation_d, kernel_d)
    has_tap = inside & has_w & has_h & has_d
    source = co * weight_out + tap_d * weight_d + tap_h * weight_h + tap_w * weight_w
    co += group * group_out
    place = co * y_c + o_d * y_d + o_h * y_h + o_w * y_w

    first = part * slice_in
    last = gl.minimum(first + slice_in, group_in)
    w = weight + (group * group_in + first).to(gl.int64) * weight_in + source
    step = weight_in.to(gl.int64) * BLOCK_IN

    # Inputs on their way to shared memory: [(block of channels, image), channel].
    line = gl.arange(0, HELD_IN // BLOCK_IN * IMAGES, layout=gl.SliceLayout(1, STAGE))
    k = (line // IMAGES * BLOCK_IN)[:, None] + gl.arange(
        0, BLOCK_IN, layout=gl.SliceLayout(0, STAGE)
    )[None, :]
    n = (image + line % IMAGES)[:, None]
    of_images = x + (n * in_channels + group * group_in + k)
    inputs = gl.allocate_shared_memory(gl.float32, [HELD_IN * IMAGES, 1], FLAT)

    acc = gl.zeros([COLUMNS, IMAGES], gl.float32, ROWS)
    a = _weights(w, has_tap, last - first, weight_in, LOAD)
    for channel in range(first, last, HELD_IN):
        gl.thread_barrier()
        value = gl.load(of_images + channel, mask=(k < last - channel) & (n < batch), other=0.0)
        lines = inputs.index(0)._reinterpret(gl.float32, [k.shape[0], BLOCK_IN], LINES)
        lines.store(value.to(gl.float32))
        gl.thread_barrier()
        blocks = gl.minimum((last - channel + BLOCK_IN - 1) // BLOCK_IN, HELD_IN // BLOCK_IN)
        for block in range(blocks):
            now = a
            w += step
            left = last - channel - (block + 1) * BLOCK_IN
            a = _weights(w, has_tap & (left > 0), left, weight_in, LOAD)
            acc = add_products(now, inputs, block * (IMAGES * BLOCK_IN), acc, ROWS)

    # An output without a tap has bias alone, whatever was multiplied by its zeros.
    has_tap = gl.convert_layout(has_tap, gl.SliceLayout(1, ROWS))
    inside = gl.convert_layout(inside, gl.SliceLayout(1, ROWS))
    place = gl.convert_layout(place, gl.SliceLayout(1, ROWS))
    co = gl.convert_layout(co, gl.SliceLayout(1, ROWS))
    n = image + gl.arange(0, IMAGES, layout=gl.SliceLayout(0, ROWS))
    acc = gl.where(has_tap[:, None], acc, 0.0)
    target = place[:, None] + (n * y_n)[None, :]
    mask = inside[:, None] & (n < batch)[None, :]
    if slices > 1:
        gl.store(partial + part.to(gl.int64) * batch * y_n + target, acc, mask=mask)
    else:
        start = gl.load(bias + co, mask=inside & (has_bias != 0), other=0.0).to(gl.float32)
        gl.store(y + target, (acc + start[:, None]).to(y.dtype.element_ty), mask=mask)


@triton.jit
def point_reduce(
    bias,
    y,
    partial,
    has_bias,
    out_channels,
    y_c,
    elements,  # of `y`
    slices,
    BLOCK: tl.constexpr,
):
    """y = bias + partial[0] + partial[1] + ..., element by element in memory order."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < elements
    value = tl.zeros((BLOCK,), tl.float32)
    source = partial + i
    for _ in range(slices):
        value += tl.load(source, mask=inside, other=0.0)
        source += elements
    co = i // y_c % out_channels
    value += tl.load(bias + co, mask=inside & (has_bias != 0), other=0.0).to(tl.float32)
    tl.store(y + i, value.to(y.dtype.element_ty), mask=inside)
