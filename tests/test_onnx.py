"""torch.onnx.export(dynamo=True): one ConvTranspose node, and onnxruntime's answer is ours."""

import logging

import onnxruntime
import pytest
import torch
from torch import nn

import convt

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

CLASSES = {1: convt.ConvTranspose1d, 2: convt.ConvTranspose2d, 3: convt.ConvTranspose3d}
# Attributes, the axes that they are for, and which nodes there are besides ConvTranspose.
CASES = {
    "defaults": ({}, (1, 2, 3), []),
    "no bias": ({"stride": 2, "bias": False}, (1, 2, 3), []),
    "stride, padding, output_padding": (
        {"stride": 3, "padding": 1, "output_padding": 2},
        (1, 2, 3),
        [],
    ),
    "groups, dilation": ({"stride": 2, "groups": 2, "dilation": 2, "padding": 1}, (1, 2, 3), []),
    "unlike axes": (
        {"stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2), "dilation": (1, 2)},
        (2,),
        [],
    ),
    # onnxruntime loads a node with such an output_padding, and refuses to run it.
    "output_padding is stride": (
        {"padding": 1, "output_padding": 1, "dilation": 2},
        (1, 2, 3),
        [],
    ),
    "output_padding over padding": (
        {"padding": 1, "output_padding": 2, "dilation": 3, "groups": 2},
        (1, 2, 3),
        ["Add", "Pad"],
    ),
    "output_padding over padding, no bias": (
        {"output_padding": 2, "dilation": 3, "bias": False},
        (1, 2, 3),
        ["Pad"],
    ),
    "output_padding over stride on one axis": (
        {"stride": (2, 1), "output_padding": (1, 1), "dilation": (1, 2)},
        (2,),
        ["Add", "Pad"],
    ),
}


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def layer(name, axes):
    torch.manual_seed(0)
    return CLASSES[axes](4, 6, 3, **CASES[name][0]).eval()


def images(axes, batch=2, more=0):
    return torch.randn(batch, 4, *(n + more for n in (5, 6, 4)[:axes]))


def exported(model, x, **options):
    program = torch.onnx.export(model, (x,), dynamo=True, verbose=False, **options)
    nodes = [node.op_type for node in program.model.graph]
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    (argument,) = session.get_inputs()

    def run(x):
        return list(map(torch.from_numpy, session.run(None, {argument.name: x.numpy()})))

    return nodes, run


class Beside(nn.Module):
    """Each of some layers on the same input."""

    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        return tuple(layer(x) for layer in self.layers)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("axes", CLASSES)
def test_each_attribute(axes, dynamic):
    names = [name for name, case in CASES.items() if axes in case[1]]
    model = Beside([layer(name, axes) for name in names]).eval()
    sizes = {0: "batch", **{i + 2: f"size{i}" for i in range(axes)}}
    nodes, run = exported(model, images(axes), **{"dynamic_shapes": (sizes,)} if dynamic else {})
    for nodes_of_one in [CASES[name][2] for name in names]:
        for node in ("ConvTranspose", *nodes_of_one):
            nodes.remove(node)
    assert nodes == []
    for x in [images(axes), images(axes, 1, 3), images(axes, 5, 1)] if dynamic else [images(axes)]:
        for name, y, expected in zip(names, run(x), model(x), strict=True):
            torch.testing.assert_close(y, expected, msg=lambda text, name=name: f"{name}: {text}")


def test_unbatched():
    model, x = layer("defaults", 2), images(2)[0]
    nodes, run = exported(model, x)
    assert nodes == ["Unsqueeze", "ConvTranspose", "Squeeze"]
    torch.testing.assert_close(run(x), [model(x)])


@pytest.mark.parametrize("name", ["defaults", "output_padding over padding"])
def test_a_program_exported_before(name):
    model, x = layer(name, 2), images(2)
    program = torch.export.export(model, (x,))
    onnx = torch.onnx.export(program, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(onnx.model_proto.SerializeToString())
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), model(x))


def test_a_model_of_several_layers():
    model = nn.Sequential(layer("defaults", 2), nn.ReLU(), convt.ConvTranspose2d(6, 3, 2, 2)).eval()
    x = images(2)
    nodes, run = exported(model, x, dynamic_shapes=({0: "n", 3: "w"},))
    assert [node for node in nodes if node in ("ConvTranspose", "Relu")] == [
        "ConvTranspose",
        "Relu",
        "ConvTranspose",
    ]
    x = images(2, 3)
    torch.testing.assert_close(run(x), [model(x)])
