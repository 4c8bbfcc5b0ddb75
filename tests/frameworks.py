"""How other frameworks define a transposed convolution, in numpy, by their own rules.

Images are `[batch, channels, height, width]` or `[batch, height, width, channels]`, as each has it.
An axis is (input size, kernel size, stride, dilation); sizes and pads are per axis.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Axis(NamedTuple):
    size: int
    kernel: int
    stride: int
    dilation: int = 1

    @property
    def extent(self) -> int:
        """Of the kernel with its holes."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def full(self) -> int:
        """Rows that some input reaches."""
        return (self.size - 1) * self.stride + self.extent


def scattered(x, weight, axes, groups=1):
    """All rows that an input reaches: y[o] += x[i] * weight[k] at o = i * stride + k * dilation.

    x `[batch, in, height, width]`, weight `[in, out / groups, height, width]`.
    """
    blocks = x.reshape(x.shape[0], groups, -1, *x.shape[2:])
    weights = weight.reshape(groups, -1, *weight.shape[1:])
    h, w = axes
    y = np.zeros((x.shape[0], groups, weight.shape[1], h.full, w.full))
    for i in range(h.kernel):
        for j in range(w.kernel):
            rows = slice(i * h.dilation, i * h.dilation + (h.size - 1) * h.stride + 1, h.stride)
            columns = slice(j * w.dilation, j * w.dilation + (w.size - 1) * w.stride + 1, w.stride)
            y[..., rows, columns] += np.einsum("ngchw,gco->ngohw", blocks, weights[..., i, j])
    return y.reshape(x.shape[0], -1, h.full, w.full)


def cut(y, pads):
    """Rows off each end of both axes, [(begin, end), (begin, end)]; zeros where negative."""
    for axis, (begin, end) in zip((2, 3), pads, strict=True):
        grown = [(0, 0)] * 4
        grown[axis] = (max(-begin, 0), max(-end, 0))
        y = np.pad(y, grown)
        y = np.take(y, range(max(begin, 0), y.shape[axis] - max(end, 0)), axis)
    return y


# ONNX, onnxruntime, OpenVINO


def onnx_pads(axis, auto_pad, output_padding=0, output_size=None):
    """The specification's pads of an axis; output_size is that of the attribute output_shape."""
    if auto_pad == "VALID":
        return 0, -output_padding
    size = axis.size * axis.stride if output_size is None else output_size
    total = axis.full + output_padding - size
    begin = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
    return begin, total - begin - output_padding


def openvino_pads(axis, auto_pad, output_size=None):
    """Of ConvolutionBackpropData, as 2026.4 runs it: SAME alone cuts nothing off."""
    total = 0 if output_size is None else axis.full - output_size
    begin = total - total // 2 if auto_pad == "same_upper" else total // 2
    return begin, total - begin


# TensorFlow, Keras, LiteRT: the gradient of a convolution with these pads


def tensorflow_pads(axis, padding, output_size):
    """Pads for the output size that a caller asks for."""
    total = max(axis.full - output_size, 0) if padding == "SAME" else 0
    return total // 2, axis.full - output_size - total // 2


def keras_output_size(axis, padding, output_padding=None):
    if output_padding is None:
        if padding == "same":
            return axis.size * axis.stride
        return axis.size * axis.stride + max(axis.extent - axis.stride, 0)
    pad = axis.extent // 2 if padding == "same" else 0
    return axis.full - 2 * pad + output_padding


# JAX: a convolution of the input with zeros between its pixels


def jax_pads(axis, padding):
    """`lax.conv_transpose`'s pads of that convolution."""
    total = axis.extent + axis.stride - 2
    if padding == "VALID":
        total += max(axis.extent - axis.stride, 0)
        return axis.extent - 1, total - (axis.extent - 1)
    begin = axis.extent - 1 if axis.stride > axis.extent - 1 else -(-total // 2)
    return begin, total - begin


def jax_conv_transpose(x, kernel, axes, pads):
    """x `[batch, height, width, in]`, kernel `[height, width, in, out]`, which is not flipped."""
    h, w = axes
    spread = np.zeros(
        (x.shape[0], (h.size - 1) * h.stride + 1, (w.size - 1) * w.stride + 1, x.shape[3])
    )
    spread[:, :: h.stride, :: w.stride] = x
    grown = np.pad(spread, ((0, 0), *pads, (0, 0)))
    rows, columns = (n - axis.extent + 1 for n, axis in zip(grown.shape[1:3], axes, strict=True))
    y = np.zeros((x.shape[0], rows, columns, kernel.shape[3]))
    for i in range(h.kernel):
        for j in range(w.kernel):
            top, left = i * h.dilation, j * w.dilation
            y += grown[:, top : top + rows, left : left + columns] @ kernel[i, j]
    return y


# ncnn: rows appended for output_pad first, then cut


def ncnn_pads(axis, pad, output_pad=0, output_size=None):
    """pad is (left, right), or -233 (SAME_UPPER) or -234 (SAME_LOWER), which need a size."""
    if isinstance(pad, tuple):
        return pad[0], pad[1] - output_pad
    total = 0 if output_size is None else axis.full + output_pad - output_size
    begin = total // 2 if pad == -233 else total - total // 2
    return begin, total - begin - output_pad
