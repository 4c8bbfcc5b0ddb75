"""docs/other-frameworks.md: weights and pads of other frameworks, turned into convt's as it says.

Each framework's rule is written out in tests/frameworks.py; onnxruntime is asked itself.
"""

import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper

import convt
from tests.frameworks import (
    Axis,
    cut,
    jax_conv_transpose,
    jax_pads,
    keras_output_size,
    ncnn_pads,
    onnx_pads,
    openvino_pads,
    scattered,
    tensorflow_pads,
)

GEOMETRIES = {
    "k4 s2": (Axis(5, 4, 2), Axis(4, 4, 2)),
    "k3 s2": (Axis(5, 3, 2), Axis(6, 3, 2)),
    "k5 s1": (Axis(5, 5, 1), Axis(3, 5, 1)),
    "k2 s3": (Axis(4, 2, 3), Axis(3, 1, 3)),
    "k3 s3": (Axis(4, 3, 3), Axis(3, 3, 3)),
    "unlike axes": (Axis(5, 4, 3), Axis(4, 3, 2)),
    "dilation": (Axis(5, 3, 2, 2), Axis(4, 2, 1, 3)),
}
EACH = pytest.mark.parametrize("name", GEOMETRIES)
RNG = np.random.default_rng(0)


def random(*size):
    return RNG.standard_normal(size)


def by_convt(x, weight, axes, pads, groups=1):
    """The document's recipe for rows cut off at (begin, end) of each axis."""
    padding, output_padding, rest = [], [], []
    for axis, (begin, end) in zip(axes, pads, strict=True):
        if 0 <= begin - end < max(axis.stride, axis.dilation):
            padding.append(begin)
            output_padding.append(begin - end)
            rest.append((0, 0))
        else:
            padding.append(max(min(begin, end), 0))
            output_padding.append(0)
            rest.append((begin - padding[-1], end - padding[-1]))
    y = convt.conv_transpose2d(
        torch.from_numpy(np.ascontiguousarray(x)),
        torch.from_numpy(np.ascontiguousarray(weight)),
        stride=[axis.stride for axis in axes],
        padding=padding,
        output_padding=output_padding,
        groups=groups,
        dilation=[axis.dilation for axis in axes],
    )
    return cut(y.numpy(), rest)


def nchw(x):
    return np.moveaxis(x, -1, 1)


def nhwc(x):
    return np.moveaxis(x, 1, -1)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("auto_pad", ["VALID", "SAME_UPPER", "SAME_LOWER"])
@EACH
def test_onnx(name, auto_pad, groups):
    """Weights as torch's; SAME means size * stride, with the odd row off the end, or the begin."""
    axes = GEOMETRIES[name]
    x = random(2, 4, *(axis.size for axis in axes))
    weight = random(4, 3, *(axis.kernel for axis in axes))
    pads = [onnx_pads(axis, auto_pad) for axis in axes]
    if min(begin for begin, _ in pads) < 0:
        pytest.skip("the specification leaves open what a kernel below the stride means")
    expected = cut(scattered(x, weight, axes, groups), pads)
    if auto_pad != "VALID":
        assert expected.shape[2:] == tuple(axis.size * axis.stride for axis in axes)
    np.testing.assert_allclose(by_convt(x, weight, axes, pads, groups), expected, atol=1e-12)


def by_onnxruntime(x, weight, axes, groups, **attributes):
    attributes = {
        "group": groups,
        "strides": [axis.stride for axis in axes],
        "dilations": [axis.dilation for axis in axes],
        **attributes,
    }
    tensor = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("ConvTranspose", ["x", "w"], ["y"], **attributes)],
        "graph",
        [helper.make_tensor_value_info("x", tensor, x.shape)],
        [helper.make_tensor_value_info("y", tensor, None)],
        [helper.make_tensor("w", tensor, weight.shape, weight.astype("f").ravel())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"x": x.astype("f")})[0]


@pytest.mark.parametrize(
    "attributes",
    [
        {"auto_pad": "VALID"},
        {"auto_pad": "SAME_UPPER"},
        {"auto_pad": "SAME_LOWER"},
        {"pads": [1, 0, 0, 1]},
        {"output_shape": 1},
        {"output_shape": 1, "auto_pad": "SAME_UPPER"},
        {"output_padding": [1, 1], "pads": [1, 1, 1, 1]},
    ],
    ids=lambda a: ", ".join(f"{k}={v}" for k, v in a.items()),
)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("name", ["k4 s2", "k3 s2", "k3 s3", "unlike axes"])
def test_onnxruntime(name, groups, attributes):
    axes = GEOMETRIES[name]
    x = random(2, 4, *(axis.size for axis in axes))
    weight = random(4, 3, *(axis.kernel for axis in axes))
    auto_pad = attributes.get("auto_pad", "SAME_LOWER")  # its rule where only a size is given
    if "pads" in attributes:
        begin, op = attributes["pads"], attributes.get("output_padding", (0, 0))
        pads = [(begin[i], begin[i + 2] - op[i]) for i in range(2)]
    elif "output_shape" in attributes:  # a row less than all
        attributes = {**attributes, "output_shape": [axis.full - 1 for axis in axes]}
        pads = [onnx_pads(axis, auto_pad, output_size=axis.full - 1) for axis in axes]
    else:
        pads = [onnx_pads(axis, auto_pad) for axis in axes]
    expected = by_onnxruntime(x, weight, axes, groups, **attributes)
    y = by_convt(x, weight, axes, pads, groups)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
def test_onnxruntime_appends_no_rows_for_same(auto_pad):
    """By the specification, SAME means stride times the input also where kernels leave gaps."""
    axes = GEOMETRIES["k2 s3"]
    x = random(2, 4, *(axis.size for axis in axes))
    weight = random(4, 3, *(axis.kernel for axis in axes))
    expected = by_onnxruntime(x, weight, axes, 1, auto_pad=auto_pad)
    y = by_convt(x, weight, axes, [(0, 0)] * 2)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    assert all(sum(onnx_pads(axis, auto_pad)) < 0 for axis in axes)


def test_onnxs_reference_evaluator_is_no_reference_for_groups():
    """Why exported models are compared with onnxruntime. Once this fails, it may be one."""
    from onnx.reference import ReferenceEvaluator

    nodes = [helper.make_node("ConvTranspose", ["x", "w"], ["y"], group=2)]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value(n, onnx.TensorProto.FLOAT, None) for n in "xw"],
        [value("y", onnx.TensorProto.FLOAT, None)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    x, weight = random(1, 4, 5, 5).astype("f"), random(4, 3, 3, 3).astype("f")
    try:
        y = ReferenceEvaluator(model).run(None, {"x": x, "w": weight})[0]
    except ValueError:
        return
    assert not np.allclose(y, scattered(x, weight, GEOMETRIES["k3 s2"], 2))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@EACH
def test_jax(name, padding):
    """`lax.conv_transpose`: HWIO kernels, which are not flipped: flip them."""
    axes = GEOMETRIES[name]
    x = random(2, *(axis.size for axis in axes), 4)
    kernel = random(*(axis.kernel for axis in axes), 4, 3)
    pads = [jax_pads(axis, padding) for axis in axes]
    expected = jax_conv_transpose(x, kernel, axes, pads)
    weight = kernel[::-1, ::-1].transpose(2, 3, 0, 1)
    ours = [
        (axis.extent - 1 - begin, axis.extent - 1 - end)
        for axis, (begin, end) in zip(axes, pads, strict=True)
    ]
    y = by_convt(nchw(x), weight, axes, ours)
    np.testing.assert_allclose(nhwc(y), expected, atol=1e-12)


@EACH
def test_jax_with_explicit_pads_and_transpose_kernel(name):
    """Pads are those of the convolution; transpose_kernel=True takes HWOI kernels, flipped."""
    axes = GEOMETRIES[name]
    x = random(2, *(axis.size for axis in axes), 4)
    kernel = random(*(axis.kernel for axis in axes), 3, 4)
    pads = [(axis.extent - 1, max(axis.extent - 2, 0)) for axis in axes]
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    expected = jax_conv_transpose(x, flipped, axes, pads)
    ours = [
        (axis.extent - 1 - begin, axis.extent - 1 - end)
        for axis, (begin, end) in zip(axes, pads, strict=True)
    ]
    y = by_convt(nchw(x), kernel.transpose(3, 2, 0, 1), axes, ours)
    np.testing.assert_allclose(nhwc(y), expected, atol=1e-12)


@pytest.mark.parametrize("padding", ["same", "valid"])
@EACH
def test_keras(name, padding):
    """`Conv2DTranspose`: kernels [height, width, out, in], not flipped; TensorFlow's pads."""
    axes = GEOMETRIES[name]
    x = random(2, *(axis.size for axis in axes), 4)
    kernel = random(*(axis.kernel for axis in axes), 3, 4)
    weight = kernel.transpose(3, 2, 0, 1)
    sizes = [keras_output_size(axis, padding) for axis in axes]
    pads = [
        tensorflow_pads(axis, padding.upper(), size) for axis, size in zip(axes, sizes, strict=True)
    ]
    expected = nhwc(cut(scattered(nchw(x), weight, axes), pads))
    assert expected.shape[1:3] == tuple(sizes)
    y = by_convt(nchw(x), weight, axes, pads)
    np.testing.assert_allclose(nhwc(y), expected, atol=1e-12)


def convolution(image, kernel, axes, begins, sizes):
    """TensorFlow's forward convolution of `[height, width]`, whose gradient the layer is."""
    y = np.zeros(sizes)
    for (o, p), (i, j) in itertools.product(np.ndindex(*sizes), np.ndindex(*kernel.shape)):
        row = o * axes[0].stride + i * axes[0].dilation - begins[0]
        column = p * axes[1].stride + j * axes[1].dilation - begins[1]
        if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
            y[o, p] += image[row, column] * kernel[i, j]
    return y


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("more", [0, 1])  # several sizes have the same convolution
@EACH
def test_tensorflow_and_litert(name, padding, more):
    """`conv2d_transpose` and TRANSPOSE_CONV: the gradient of a convolution from output_shape."""
    axes = GEOMETRIES[name]
    if padding == "SAME":
        sizes = [axis.size * axis.stride - more for axis in axes]
    else:
        sizes = [axis.full + more for axis in axes]
    forward = [
        -(-size // axis.stride)
        if padding == "SAME"
        else -(-(size - axis.extent + 1) // axis.stride)
        for size, axis in zip(sizes, axes, strict=True)
    ]
    if forward != [axis.size for axis in axes]:
        pytest.skip("TensorFlow refuses this output_shape")
    x, kernel = random(*forward), random(*(axis.kernel for axis in axes))
    pads = [tensorflow_pads(axis, padding, size) for axis, size in zip(axes, sizes, strict=True)]
    expected = np.zeros(sizes)
    for index in np.ndindex(*sizes):  # the transpose of the convolution's matrix
        unit = np.zeros(sizes)
        unit[index] = 1
        begins = [begin for begin, _ in pads]
        expected[index] = (convolution(unit, kernel, axes, begins, forward) * x).sum()
    y = by_convt(x[None, None], kernel[None, None], axes, pads)
    np.testing.assert_allclose(y[0, 0], expected, atol=1e-12)


@pytest.mark.parametrize("less", [None, 0, 1, 2])
@pytest.mark.parametrize("auto_pad", ["same_upper", "same_lower"])
@EACH
def test_openvino(name, auto_pad, less):
    """SAME cuts nothing off without output_shape; with it, the odd row is not where ONNX has it."""
    axes = GEOMETRIES[name]
    x = random(1, 4, *(axis.size for axis in axes))
    weight = random(4, 3, *(axis.kernel for axis in axes))
    pads = [
        openvino_pads(axis, auto_pad, None if less is None else axis.full - less) for axis in axes
    ]
    expected = cut(scattered(x, weight, axes), pads)
    np.testing.assert_allclose(by_convt(x, weight, axes, pads), expected, atol=1e-12)
    if less == 1:
        onnx_begin = [onnx_pads(a, auto_pad.upper(), output_size=a.full - 1)[0] for a in axes]
        assert all(begin != other for (begin, _), other in zip(pads, onnx_begin, strict=True))


@pytest.mark.parametrize(
    ("pad", "output_pad", "less"),
    [((1, 1), 0, None), ((1, 0), 0, None), ((0, 1), 1, None), (-233, 0, None), (-233, 0, 1),
     (-234, 0, 1), (-234, 1, 2)],
)  # fmt: skip
@pytest.mark.parametrize("groups", [1, 2])
@EACH
def test_ncnn(name, groups, pad, output_pad, less):
    """`Deconvolution` has [out, in, height, width]; DeconvolutionDepthWise a block per group."""
    axes = GEOMETRIES[name]
    x = random(1, 4, *(axis.size for axis in axes))
    kernel = random(groups, 3, 4 // groups, *(axis.kernel for axis in axes))
    weight = kernel.swapaxes(1, 2).reshape(4, 3, *kernel.shape[3:])
    pads = [
        ncnn_pads(axis, pad, output_pad, None if less is None else axis.full - less)
        for axis in axes
    ]
    expected = cut(scattered(x, weight, axes, groups), pads)
    y = by_convt(x, weight, axes, pads, groups)
    np.testing.assert_allclose(y, expected, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 2])
@EACH
def test_tinygrad(name, groups):
    """`Tensor.conv_transpose2d`: torch's weights and torch's rule."""
    axes = GEOMETRIES[name]
    x = random(2, 4, *(axis.size for axis in axes))
    weight = random(4, 3, *(axis.kernel for axis in axes))
    pads = [(min(1, axis.extent - 1), min(1, axis.extent - 1) - 1) for axis in axes]
    expected = cut(scattered(x, weight, axes, groups), pads)
    y = by_convt(x, weight, axes, pads, groups)
    np.testing.assert_allclose(y, expected, atol=1e-12)
