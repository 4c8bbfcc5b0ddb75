"""General transposed convolution, one output phase per program.

Output o takes tap k of input i when o + padding = i * stride + k * dilation. Outputs whose
o + padding have the same residue modulo the stride form a phase: all of them use the same taps, so
a phase is a small dense convolution of the input and no tap that does not exist is multiplied.

Sums of fp32's products are fp32 additions of blocks of BLOCK_IN channels; other sums are the tensor
core's. NaN, infinity and the largest numbers do what aot/kernels/precision.py says.
"""

import triton
import triton.language as tl

from aot.kernels.precision import dot


@triton.jit
def _taps(phase, kernel, stride, padding, dilation, gcd, tap_period, tap_inverse):
    """(first tap, number of taps, input index of the first tap at quotient 0) of one axis.

    gcd = gcd(stride, dilation), tap_period = stride / gcd, tap_inverse = (dilation / gcd)^-1
    modulo tap_period. Only residues that gcd divides have taps; they are tap_period apart.
    """
    shifted = phase + padding
    residue = shifted % stride
    first = (residue // gcd) * tap_inverse % tap_period
    count = tl.where(residue % gcd == 0, (kernel - first + tap_period - 1) // tap_period, 0)
    origin = (shifted - first * dilation) // stride  # exact wherever count > 0
    return first, tl.maximum(count, 0), origin


@triton.jit
def phase(
    x,
    weight,  # [groups * group_in, kernel_h, kernel_w, group_out]
    bias,
    y,
    has_bias,
    batch,
    groups,
    group_in,
    group_out,
    in_h,
    in_w,
    out_h,
    out_w,
    kernel_h,
    kernel_w,
    x_n,
    x_c,
    x_h,
    x_w,
    y_n,
    y_c,
    y_h,
    y_w,
    stride_h,
    stride_w,
    padding_h,
    padding_w,
    dilation_h,
    dilation_w,
    gcd_h,
    gcd_w,
    tap_period_h,
    tap_period_w,
    tap_inverse_h,
    tap_inverse_w,
    tap_shift_h,  # dilation / gcd: input rows between two taps of a phase
    tap_shift_w,
    quotients_h,  # ceil(out / stride): outputs of a phase
    quotients_w,
    log2_tile_h,
    log2_tile_w,
    PRECISION: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_IN: tl.constexpr,
):
    # Phases are innermost: they share an input tile, and together they fill whole output sectors.
    program = tl.program_id(0)
    phase_w = program % stride_w
    program = program // stride_w
    phase_h = program % stride_h
    program = program // stride_h
    out_tiles = tl.cdiv(group_out, BLOCK_OUT)
    out_tile = program % out_tiles
    program = program // out_tiles
    group = (program % groups).to(tl.int64)
    program = program // groups
    tiles_w = ((quotients_w - 1) >> log2_tile_w) + 1
    tiles_h = ((quotients_h - 1) >> log2_tile_h) + 1
    first_q_w = (program % tiles_w) << log2_tile_w
    program = program // tiles_w
    first_q_h = (program % tiles_h) << log2_tile_h
    first_n = (program // tiles_h) * (BLOCK_PIXELS >> (log2_tile_h + log2_tile_w))

    first_h, taps_h, origin_h = _taps(
        phase_h, kernel_h, stride_h, padding_h, dilation_h, gcd_h, tap_period_h, tap_inverse_h
    )
    first_w, taps_w, origin_w = _taps(
        phase_w, kernel_w, stride_w, padding_w, dilation_w, gcd_w, tap_period_w, tap_inverse_w
    )

    # A program's pixels are a box of tile_n x tile_h x tile_w quotients, all powers of two.
    pixel = tl.arange(0, BLOCK_PIXELS)
    q_w = first_q_w + (pixel & ((1 << log2_tile_w) - 1))
    q_h = first_q_h + ((pixel >> log2_tile_w) & ((1 << log2_tile_h) - 1))
    n = pixel >> (log2_tile_h + log2_tile_w)
    o_h = q_h * stride_h + phase_h
    o_w = q_w * stride_w + phase_w
    stored = (n < batch - first_n) & (o_h < out_h) & (o_w < out_w)
    first_i_h = q_h + origin_h
    first_i_w = q_w + origin_w

    # Tiles are [pixels, channels] in both layouts: Triton puts neighbouring lanes along channels
    # where their stride is the constant 1, and along pixels otherwise.
    # Offsets are relative to the box's image, where 32 bits hold them (the planner proves it;
    # strides are 64-bit in wide variants), however large the batch is.
    lane = tl.arange(0, BLOCK_IN)
    out = out_tile * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    out_inside = out < group_out
    taps = kernel_h * kernel_w
    x += first_n.to(tl.int64) * x_n + group * group_in * x_c
    x_pixel = n * x_n + first_i_h * x_h + first_i_w * x_w
    weight += group * group_in * taps * group_out
    w_tile = (lane * (taps * group_out))[:, None] + out[None, :]
    x_tile = x_pixel[:, None] + (lane * x_c)[None, :]
    in_tiles = tl.cdiv(group_in, BLOCK_IN)
    acc = tl.zeros((BLOCK_PIXELS, BLOCK_OUT), tl.float32)

    # A weight that is not finite makes NaN of the zeros of a tap outside the image. That is rare:
    # sums with a NaN are made again, without such taps.
    steps = taps_h * taps_w * in_tiles
    for EXACT in tl.static_range(2):
        if EXACT:
            again = tl.max(tl.max((acc != acc).to(tl.int32), 1), 0) != 0
            acc = tl.where(again, 0.0, acc)
            steps = tl.where(again, steps, 0)
        # One flat loop over (tap, input channels): a nested one would not be software-pipelined.
        for step in tl.range(0, steps, num_stages=1 if EXACT else None):
            tap = step // in_tiles
            tap_h = tap // taps_w
            tap_w = tap % taps_w
            c = step % in_tiles * BLOCK_IN
            in_inside = lane < group_in - c
            i_h = first_i_h - tap_h * tap_shift_h
            i_w = first_i_w - tap_w * tap_shift_w
            inside = stored & (i_h >= 0) & (i_h < in_h) & (i_w >= 0) & (i_w < in_w)
            x_shift = tap_h * tap_shift_h * x_h + tap_w * tap_shift_w * x_w
            x_step = x + (c.to(tl.int64) * x_c - x_shift)
            k = (first_h + tap_h * tap_period_h) * kernel_w + first_w + tap_w * tap_period_w
            w_step = weight + (c.to(tl.int64) * taps + k) * group_out

            w = tl.load(w_step + w_tile, mask=in_inside[:, None] & out_inside[None, :], other=0.0)
            a = tl.load(x_step + x_tile, mask=inside[:, None] & in_inside[None, :], other=0.0)
            total = dot(a, w, acc, PRECISION)
            acc = tl.where(inside[:, None], total, acc) if EXACT else total

    channel = group * group_out + out
    b = tl.load(bias + channel, mask=out_inside & (has_bias != 0), other=0.0).to(tl.float32)
    y += first_n.to(tl.int64) * y_n + group * group_out * y_c
    y_pixel = n * y_n + o_h * y_h + o_w * y_w
    acc += b[None, :]
    y_tile = y_pixel[:, None] + (out * y_c)[None, :]
    mask = stored[:, None] & out_inside[None, :]
    tl.store(y + y_tile, acc.to(y.dtype.element_ty), mask=mask, cache_modifier=".cs")
