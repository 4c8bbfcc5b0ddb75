"""A transposed convolution in one file of plain Triton: two kernels, their launch, `ModelNew`.

An output o of one axis has the products of those taps k for which i = (o + padding - k * dilation)
/ stride is an integer: the outputs of one remainder of o by stride, a phase, share their taps.
"""

import torch
import torch.nn as nn
import triton
import triton.language as tl


@triton.jit
def single_tap_kernel(
    x, w, bias, y, CIN, COUT, IH, IW, OH, OW, KH, SH, PH, PW, DH, DW, inverse_h, inverse_w,
    first_row, rows, tile_w, tiles_w, out_tiles, KW: tl.constexpr, SW: tl.constexpr,
    GCD_H: tl.constexpr, GCD_W: tl.constexpr, HAS_BIAS: tl.constexpr, SLOTS: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_O: tl.constexpr,
):  # fmt: skip
    """For layers whose outputs have one tap at most an axis: memory bounds them.

    A program reads one input row and writes whole output rows: the products of each tap, [channels,
    taps, pixels], are put in the order of output columns by a gather, and most rows are only bias.
    """
    pid = tl.program_id(0)
    i_h = first_row + pid % rows  # of the input; outside of the image its products are 0
    pid = pid // rows
    first = pid % tiles_w * tile_w  # output column
    pid = pid // tiles_w
    c = pid % out_tiles * BLOCK_C + tl.arange(0, BLOCK_C)
    n = (pid // out_tiles).to(tl.int64)
    end = tl.minimum(first + tile_w, OW)
    q0 = tl.maximum((first + PW - (KW - 1) * DW) // SW, 0)

    k = tl.arange(0, BLOCK_K)[:, None]
    q = q0 + tl.arange(0, BLOCK_Q)[None, :]
    x_tile = x + (n * CIN + k) * IH * IW + i_h * IW + q
    in_x = (k < CIN) & (q < IW) & (i_h >= 0) & (i_h < IH)
    x_tile = tl.load(x_tile, mask=in_x, other=0.0)
    row = tl.arange(0, BLOCK_C * SLOTS)[:, None]  # of the weights: a channel and a tap
    w_c = pid % out_tiles * BLOCK_C + row // SLOTS
    in_w = (w_c < COUT) & (row % SLOTS < KW) & (tl.trans(k) < CIN)
    w_tile = w + (w_c * KW + row % SLOTS) * CIN + tl.trans(k)

    constant = tl.zeros((BLOCK_C,), tl.float32)
    if HAS_BIAS:
        constant += tl.load(bias + c, mask=c < COUT, other=0.0).to(tl.float32)
    y += (n * COUT + c[:, None]) * OH * OW

    for r in range(SH):  # rows without a tap
        o_h = i_h * SH - PH + r
        tap = (r // GCD_H * inverse_h) % (SH // GCD_H)
        if ((r % GCD_H != 0) | (tap >= KH)) & (o_h >= 0) & (o_h < OH):
            for o in range(first, end, BLOCK_O):
                o_w = o + tl.arange(0, BLOCK_O)[None, :]
                value = constant[:, None] + tl.zeros((1, BLOCK_O), tl.float32)
                in_y = (c[:, None] < COUT) & (o_w < end)
                tl.store(y + o_h * OW + o_w, value.to(y.dtype.element_ty), mask=in_y)

    for k_h in range(KH):
        o_h = i_h * SH - PH + k_h * DH
        if (o_h >= 0) & (o_h < OH):
            weights = tl.load(w_tile + k_h * COUT * KW * CIN, mask=in_w, other=0.0)
            products = tl.dot(weights, x_tile, input_precision="tf32x3")
            products = products.reshape(BLOCK_C, SLOTS, BLOCK_Q).permute(0, 2, 1)
            products = products.reshape(BLOCK_C * BLOCK_Q * SLOTS)
            for o in range(first, end, BLOCK_O):
                o_w = o + tl.arange(0, BLOCK_O)
                phase = (o_w + PW) % SW
                tap = (phase // GCD_W * inverse_w) % (SW // GCD_W)
                pixel = (o_w + PW - tap * DW) // SW - q0
                valid = (phase % GCD_W == 0) & (tap < KW) & (pixel >= 0) & (pixel < BLOCK_Q)
                place = tl.where(valid, pixel * SLOTS + tap, 0)
                place = tl.arange(0, BLOCK_C)[:, None] * (BLOCK_Q * SLOTS) + place[None, :]
                value = tl.gather(products, place.reshape(BLOCK_C * BLOCK_O), 0)
                value = tl.where(valid[None, :], value.reshape(BLOCK_C, BLOCK_O), 0.0)
                value = (value + constant[:, None]).to(y.dtype.element_ty)
                in_y = (c[:, None] < COUT) & (o_w[None, :] < end)
                tl.store(y + o_h * OW + o_w[None, :], value, mask=in_y)


@triton.jit
def phase_kernel(
    x, w, bias, y, CIN, COUT, IH, IW, OH, OW, KH, KW, SH, SW, PH, PW, DH, DW, tiles, out_tiles,
    HAS_BIAS: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_Q: tl.constexpr,
):  # fmt: skip
    """For any layer: a program multiplies [channels out, in] by [in, pixels of one phase]."""
    pid = tl.program_id(0)
    q = pid % tiles * BLOCK_Q + tl.arange(0, BLOCK_Q)[None, :]
    pid = pid // tiles
    c = pid % out_tiles * BLOCK_C + tl.arange(0, BLOCK_C)[:, None]
    pid = pid // out_tiles
    phase_h = pid % (SH * SW) // SW
    phase_w = pid % SW
    n = (pid // (SH * SW)).to(tl.int64)
    o_h = q // tl.cdiv(OW, SW) * SH + phase_h
    o_w = q % tl.cdiv(OW, SW) * SW + phase_w
    k = tl.arange(0, BLOCK_K)
    x += n * CIN * IH * IW

    acc = tl.zeros((BLOCK_C, BLOCK_Q), tl.float32)
    for k_h in range(KH):
        if (phase_h + PH - k_h * DH) % SH == 0:
            i_h = (o_h + PH - k_h * DH) // SH
            for k_w in range(KW):
                if (phase_w + PW - k_w * DW) % SW == 0:
                    i_w = (o_w + PW - k_w * DW) // SW
                    in_image = (i_h >= 0) & (i_h < IH) & (i_w >= 0) & (i_w < IW)
                    for k0 in range(0, CIN, BLOCK_K):
                        k_x = (k0 + k)[:, None]
                        k_w_in = (k0 + k)[None, :]
                        a = w + ((k_h * COUT + c) * KW + k_w) * CIN + k_w_in
                        b = x + k_x.to(tl.int64) * IH * IW + i_h * IW + i_w
                        a = tl.load(a, mask=(c < COUT) & (k_w_in < CIN), other=0.0)
                        b = tl.load(b, mask=in_image & (k_x < CIN), other=0.0)
                        acc = tl.dot(a, b, acc, input_precision="tf32x3")
    if HAS_BIAS:
        acc += tl.load(bias + c, mask=c < COUT, other=0.0).to(tl.float32)
    y += (n * COUT + c) * OH * OW + o_h * OW + o_w
    tl.store(y, acc.to(y.dtype.element_ty), mask=(c < COUT) & (o_h < OH) & (o_w < OW))


def gcd(a, b):
    return gcd(b, a % b) if b else a


def triton_conv_transpose2d(x, weight, bias, stride, padding, dilation):
    """`[batch, CIN, IH, IW]` by a weight `[CIN, COUT, KH, KW]`; the rest are pairs."""
    (sh, sw), (ph, pw), (dh, dw) = stride, padding, dilation
    batch, c_in, in_h, in_w = x.shape
    _, c_out, kh, kw = weight.shape
    out_h = (in_h - 1) * sh - 2 * ph + dh * (kh - 1) + 1
    out_w = (in_w - 1) * sw - 2 * pw + dw * (kw - 1) + 1
    y = torch.empty((batch, c_out, out_h, out_w), device=x.device, dtype=x.dtype)
    x = x.contiguous()
    packed = weight.permute(2, 1, 3, 0).contiguous()  # [KH, COUT, KW, CIN]
    tensors = x, packed, x if bias is None else bias, y
    sizes = c_in, c_out, in_h, in_w, out_h, out_w

    gcd_h, gcd_w = gcd(sh, dh), gcd(sw, dw)
    slots = triton.next_power_of_2(kw)
    block_q, block_c = 128, triton.cdiv(64, slots)
    block_o = min(triton.next_power_of_2(block_q * sw), 1024)
    tile_w = min(block_o, (block_q - (kw - 1) * dw // sw - 1) * sw)
    if in_w <= block_q and out_w <= block_o:
        tile_w = out_w
    if kh * gcd_h <= sh and kw * gcd_w <= sw and c_in <= 64 and slots <= 8 and tile_w > 0:
        first_row = (ph - (kh - 1) * dh) // sh
        rows = (out_h - 1 + ph) // sh - first_row + 1
        tiles_w, out_tiles = triton.cdiv(out_w, tile_w), triton.cdiv(c_out, block_c)
        single_tap_kernel[(rows * tiles_w * out_tiles * batch,)](
            *tensors, *sizes, kh, sh, ph, pw, dh, dw,
            pow(dh // gcd_h, -1, sh // gcd_h), pow(dw // gcd_w, -1, sw // gcd_w),
            first_row, rows, tile_w, tiles_w, out_tiles, kw, sw, gcd_h, gcd_w, bias is not None,
            slots, block_c, max(16, triton.next_power_of_2(c_in)), block_q, block_o, num_warps=4,
        )  # fmt: skip
    else:
        tiles = triton.cdiv(triton.cdiv(out_h, sh) * triton.cdiv(out_w, sw), 64)
        out_tiles = triton.cdiv(c_out, 32)
        phase_kernel[(tiles * out_tiles * sh * sw * batch,)](
            *tensors, *sizes, kh, kw, sh, sw, ph, pw, dh, dw, tiles, out_tiles,
            bias is not None, 32, 16, 64, num_warps=2, num_stages=3,
        )  # fmt: skip
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
        conv = self.conv
        return triton_conv_transpose2d(
            x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation
        )
