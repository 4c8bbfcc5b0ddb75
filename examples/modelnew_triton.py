"""The headline layer as one file: Triton kernels compiled just in time, and `class ModelNew`.

The kernels are those of the package (aot/kernels), word for word; tests/test_modelnew.py keeps them
so. For layers with at most one tap per output and at most 64 input channels.
"""

from math import gcd

import torch
import torch.nn as nn
import triton
import triton.language as tl


@triton.jit
def tap_of(taps, residue):
    """The tap of outputs o with (o + padding) % stride == residue: a nibble; >= kernel is none."""
    return ((taps >> (residue * 4)) & 15).to(tl.int32)


@triton.jit
def _top_half(value):
    """The upper 16 bits of an fp32 as bf16, and the exact rest."""
    bits = value.to(tl.uint32, bitcast=True)
    top = (bits >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    return top, value - (bits & 0xFFFF0000).to(tl.float32, bitcast=True)


@triton.jit
def split(value, PRECISION: tl.constexpr):
    """Operands of `product`. fp32: three bf16 whose sum is `value` exactly; native: `value`."""
    if PRECISION == "fp32":
        high, rest = _top_half(value)
        middle, rest = _top_half(rest)
        low, rest = _top_half(rest)
    else:
        high = value
        middle = value
        low = value
    return high, middle, low


@triton.jit
def product(a, a_middle, a_low, b, b_middle, b_low, PRECISION: tl.constexpr):
    """a @ b of operands that were split once and are used often."""
    if PRECISION == "fp32":
        # What is left out is under 2^-22 of a product. Infinities have no parts: 0 * inf in a
        # correction must not spoil them.
        small = tl.dot(a_low, b)
        small = tl.dot(a, b_low, small)
        small = tl.dot(a_middle, b_middle, small)
        small = tl.dot(a_middle, b, small)
        small = tl.dot(a, b_middle, small)
        acc = tl.dot(a, b, tl.where(small == small, small, 0.0))
    else:
        acc = tl.dot(a, b)
    return acc


@triton.jit
def _pack(value):
    """[rows, columns] to words of two neighbouring columns: half as many gathers."""
    even, odd = tl.split(tl.reshape(value, (value.shape[0], value.shape[1] // 2, 2)))
    if value.dtype == tl.float32:
        low = even.to(tl.uint32, bitcast=True).to(tl.uint64)
        high = odd.to(tl.uint32, bitcast=True).to(tl.uint64)
        word = low | (high << 32)
    else:
        low = even.to(tl.uint16, bitcast=True).to(tl.uint32)
        high = odd.to(tl.uint16, bitcast=True).to(tl.uint32)
        word = low | (high << 16)
    return word


@triton.jit
def _unpack(word, dtype: tl.constexpr):
    if dtype == tl.float32:
        even = word.to(tl.uint32).to(dtype, bitcast=True)
        odd = (word >> 32).to(tl.uint32).to(dtype, bitcast=True)
    else:
        even = word.to(tl.uint16).to(dtype, bitcast=True)
        odd = (word >> 16).to(tl.uint16).to(dtype, bitcast=True)
    return even, odd


@triton.jit
def single_tap_nchw(
    x,
    weight,  # [groups * group_in, kernel_h, kernel_w, group_out]
    bias,
    y,
    taps_h,  # 4 bits a residue, see tap_of
    taps_w,
    has_bias,
    groups,
    group_in,
    group_out,
    in_h,
    in_w,
    out_h,
    out_w,
    kernel_h,
    kernel_w,
    stride_h,
    stride_w,
    padding_h,
    padding_w,
    dilation_h,
    dilation_w,
    first_h,  # input rows, some outside the image, whose outputs are all of the output
    span_h,
    halo_w,  # input columns left of an output's own that its tap may reach
    tile_w,  # output columns of a program
    PRECISION: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,  # input columns x input rows of a program
    BLOCK_ROWS: tl.constexpr,  # input rows of a program
    BLOCK_OUT: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    TAPS: tl.constexpr,  # kernel columns, rounded up; more than them if outputs have no tap
):
    OUT_COLUMNS: tl.constexpr = 128
    WIDTH: tl.constexpr = 32  # a warp stores pieces of 32 columns
    IN_COLUMNS: tl.constexpr = BLOCK_PIXELS // BLOCK_ROWS
    PAIRS: tl.constexpr = BLOCK_OUT // 2
    PIECES: tl.constexpr = BLOCK_ROWS * (OUT_COLUMNS // WIDTH) * PAIRS
    PRODUCTS: tl.constexpr = TAPS * BLOCK_OUT
    dtype: tl.constexpr = y.dtype.element_ty

    # Neighbouring programs write neighbouring columns, then rows, then channels.
    program = tl.program_id(0)
    tiles_w = tl.cdiv(out_w, tile_w)
    first_column = program % tiles_w * tile_w
    program = program // tiles_w
    tiles_h = tl.cdiv(span_h, BLOCK_ROWS)
    i_h = first_h + program % tiles_h * BLOCK_ROWS
    program = program // tiles_h
    out_tiles = tl.cdiv(group_out, BLOCK_OUT)
    first_out = program % out_tiles * BLOCK_OUT
    program = program // out_tiles
    group = program % groups
    n = (program // groups).to(tl.int64)
    plane = out_h * out_w
    y += ((n * groups + group) * group_out + first_out) * plane + first_column

    # The output tile is [PIECES, WIDTH]; a piece is (input row, columns, pair of channels).
    piece = tl.arange(0, PIECES)[:, None]
    pair = piece % PAIRS
    column = piece // PAIRS % (OUT_COLUMNS // WIDTH) * WIDTH + tl.arange(0, WIDTH)[None, :]
    row = piece // (PAIRS * (OUT_COLUMNS // WIDTH))
    y_tile = pair * (2 * plane) + row * (stride_h * out_w) + column
    in_tile = (column < tile_w) & (first_column + column < out_w)
    even_stored = in_tile & (first_out + 2 * pair < group_out)
    odd_stored = in_tile & (first_out + 2 * pair + 1 < group_out)
    first_row = i_h * stride_h - padding_h
    o_h = first_row + row * stride_h

    # The input tile [channels, pixels] starts halo_w left of the first output column's own.
    padded = first_column + padding_w
    k = tl.arange(0, BLOCK_IN)
    pixel = tl.arange(0, BLOCK_PIXELS)
    x_w = padded // stride_w - halo_w + pixel % IN_COLUMNS
    x_h = i_h + pixel // IN_COLUMNS
    inside = (x_w >= 0) & (x_w < in_w) & (x_h >= 0) & (x_h < in_h)
    x += (n * groups + group) * group_in * (in_h * in_w)
    x_tile = (k * (in_h * in_w))[:, None] + (x_h * in_w + x_w)[None, :]
    a = tl.load(x + x_tile, mask=inside[None, :] & (k < group_in)[:, None], other=0.0)
    a, a_middle, a_low = split(a, PRECISION)

    # Products are (kernel column, channel).
    p = tl.arange(0, PRODUCTS)
    out = first_out + p % BLOCK_OUT
    taps = kernel_h * kernel_w
    weight += (group * group_in).to(tl.int64) * taps * group_out
    w_tile = (k * (taps * group_out))[:, None] + (p // BLOCK_OUT * group_out + out)[None, :]
    is_tap = p // BLOCK_OUT < kernel_w
    in_weight = (is_tap & (out < group_out))[None, :] & (k < group_in)[:, None]
    has_bias = has_bias != 0
    offsets = group * group_out + out
    b_products = tl.load(bias + offsets, mask=(out < group_out) & has_bias, other=0.0)

    # Where each output column finds its product: in (kernel column, input column) of its tap; a
    # column without one in the last kernel column, which is no tap's. Columns are few: 16-bit
    # reciprocals divide by the stride exactly.
    reciprocal = (65535 + stride_w) // stride_w
    shifted = padded % stride_w + column
    own = (shifted * reciprocal) >> 16
    residue = shifted - own * stride_w
    tap = tap_of(taps_w, residue)
    left = ((tap * dilation_w - residue) * reciprocal) >> 16
    found = (tap < kernel_w) & (column < tile_w)
    source = tl.where(found, own - left + halo_w, 0) + row * IN_COLUMNS
    product_pair = tl.where(found, tap, TAPS - 1) * PAIRS + pair
    # Words lie as [pair / 2, pixel / 8, pair % 2, pixel % 8]: few bank conflicts, both ways.
    index = product_pair // 2 * (2 * BLOCK_PIXELS) + source // 8 * 16
    index = tl.reshape(index + product_pair % 2 * 8 + source % 8, (PIECES * WIDTH,))

    for tap_h in range(kernel_h):
        w = tl.load(weight + tap_h * (kernel_w * group_out) + w_tile, mask=in_weight, other=0.0)
        w, w_middle, w_low = split(w, PRECISION)
        acc = product(
            tl.trans(a), tl.trans(a_middle), tl.trans(a_low), w, w_middle, w_low, PRECISION
        )
        # Not all of zero weights: 0 * inf is not 0.
        acc = tl.where(is_tap[None, :], acc, 0.0) + b_products.to(tl.float32)[None, :]
        word = _pack(acc.to(dtype))
        word = tl.reshape(word, (BLOCK_PIXELS // 8, 8, PRODUCTS // 4, 2))
        word = tl.reshape(tl.permute(word, (2, 0, 3, 1)), (BLOCK_PIXELS * PRODUCTS // 2,))
        even, odd = _unpack(tl.reshape(tl.gather(word, index, 0), (PIECES, WIDTH)), dtype)
        down = tap_h * dilation_h
        in_image = (o_h + down >= 0) & (o_h + down < out_h)
        target = y + (first_row + down) * out_w + y_tile
        tl.store(target, even, mask=even_stored & in_image)
        tl.store(target + plane, odd, mask=odd_stored & in_image)

    # Rows without a tap are bias.
    channel = group * group_out + first_out + 2 * pair
    even = tl.load(bias + channel, mask=(first_out + 2 * pair < group_out) & has_bias, other=0.0)
    odd = tl.load(
        bias + channel + 1, mask=(first_out + 2 * pair + 1 < group_out) & has_bias, other=0.0
    )
    even = tl.broadcast_to(even.to(dtype), (PIECES, WIDTH))
    odd = tl.broadcast_to(odd.to(dtype), (PIECES, WIDTH))
    for residue_h in range(stride_h):
        if tap_of(taps_h, residue_h) >= kernel_h:
            in_image = (o_h + residue_h >= 0) & (o_h + residue_h < out_h)
            target = y + (first_row + residue_h) * out_w + y_tile
            tl.store(target, even, mask=even_stored & in_image)
            tl.store(target + plane, odd, mask=odd_stored & in_image)


def single_taps(out, kernel, stride, padding, dilation):
    """(table of taps, first input, inputs, halo, tapless) of one axis; see csrc/arguments.hpp."""
    step = gcd(stride, dilation)
    if kernel * step > stride or stride > 16:
        raise NotImplementedError(
            "conv_transpose2d: expected kernel_size * gcd(stride, dilation) <= stride <= 16, got "
            f"kernel_size {kernel}, stride {stride}, dilation {dilation}"
        )
    tap_of_residue = {tap * dilation % stride: tap for tap in range(kernel)}
    reaches = [tap_of_residue.get(r, 0) * dilation or r for r in range(stride)]
    table = sum(tap_of_residue.get(r, 15) << 4 * r for r in range(stride))
    first = min(-((reach - padding) // stride) for reach in reaches)
    last = max((out - 1 + padding - reach) // stride for reach in reaches)
    halo = max(tap * dilation // stride for tap in range(kernel))
    return table - (table >> 63 << 64), first, last - first + 1, halo, kernel < stride


def columns_of_a_tile(in_columns, halo, stride, padding):
    """Output columns whose taps lie in `in_columns` input columns; see csrc/single_tap.cpp."""
    whole = min(128, stride * (in_columns - halo))
    if padding % stride == 0 and whole % stride == 0 and whole % 32 == 0:
        return whole
    return min(128, stride * (in_columns - halo - 1) + 1) // 32 * 32


def triton_conv_transpose2d(x, weight, bias, stride, padding, dilation):
    (sh, sw), (ph, pw), (dh, dw) = stride, padding, dilation
    batch, in_channels, in_h, in_w = x.shape
    _, out_channels, kernel_h, kernel_w = weight.shape
    out_h = (in_h - 1) * sh - 2 * ph + dh * (kernel_h - 1) + 1
    out_w = (in_w - 1) * sw - 2 * pw + dw * (kernel_w - 1) + 1
    taps_h, first_h, span_h, _, _ = single_taps(out_h, kernel_h, sh, ph, dh)
    taps_w, _, _, halo_w, tapless = single_taps(out_w, kernel_w, sw, pw, dw)
    taps = max(2, triton.next_power_of_2(kernel_w + tapless))
    # Two input rows a program where their columns give a whole tile of output.
    rows = 2 if columns_of_a_tile(32, halo_w, sw, pw) == 128 else 1
    tile_w = columns_of_a_tile(64 // rows, halo_w, sw, pw)
    if in_channels > 64 or taps > 8 or tile_w == 0:
        raise NotImplementedError(
            "conv_transpose2d: expected at most 64 input channels and 8 taps across, got "
            f"{in_channels} channels, kernel_size {kernel_w}, stride {sw}, dilation {dw}"
        )
    block_out = 64 // taps
    x = x.contiguous()
    weight = weight.permute(0, 2, 3, 1).contiguous()
    y = torch.empty(batch, out_channels, out_h, out_w, device=x.device, dtype=x.dtype)
    tiles = triton.cdiv(out_w, tile_w) * triton.cdiv(span_h, rows)
    grid = (tiles * triton.cdiv(out_channels, block_out) * batch,)
    single_tap_nchw[grid](
        x,
        weight,
        x if bias is None else bias,
        y,
        taps_h,
        taps_w,
        int(bias is not None),
        1,
        in_channels,
        out_channels,
        in_h,
        in_w,
        out_h,
        out_w,
        kernel_h,
        kernel_w,
        sh,
        sw,
        ph,
        pw,
        dh,
        dw,
        first_h,
        span_h,
        halo_w,
        tile_w,
        PRECISION="fp32" if x.dtype == torch.float32 else "native",
        BLOCK_PIXELS=64,
        BLOCK_ROWS=rows,
        BLOCK_OUT=block_out,
        BLOCK_IN=32 if in_channels <= 32 else 64,
        TAPS=taps,
        num_warps=4,
        num_stages=1,
    )
    return y


class ModelNew(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            bias=bias,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return triton_conv_transpose2d(
            x,
            self.conv.weight,
            self.conv.bias,
            self.conv.stride,
            self.conv.padding,
            self.conv.dilation,
        )
