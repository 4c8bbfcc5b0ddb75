"""Bad input: torch's exception types, texts that name what is wrong, and nothing else happens."""

import re

import pytest
import torch
import torch.nn.functional as F

import convt

GOOD = {"input": torch.ones(2, 4, 5, 6), "weight": torch.ones(4, 3, 3, 2), "bias": torch.ones(3)}
TOO_MANY = 2**61  # times anything overflows 64 bits

# What is wrong, changes to GOOD, and the exception; torch raises the same type for the same call.
BAD = [
    ("input is a list", {"input": [1.0]}, TypeError, "expected input to be a Tensor, got list"),
    ("input is None", {"input": None}, TypeError, "expected input to be a Tensor, got NoneType"),
    ("no weight", {"weight": None}, TypeError, "expected weight to be a Tensor, got NoneType"),
    ("a float bias", {"bias": 1.0}, TypeError, "expected bias to be a Tensor or None, got float"),
    ("a float stride", {"stride": 1.5}, TypeError,
     "expected stride to be an int or a pair of ints, got 1.5 of type float"),
    ("a bool stride", {"stride": True}, TypeError, "expected stride to be an int or a pair"),
    ("a float in a pair", {"padding": (1, 1.5)}, TypeError,
     "expected padding to be an int or a pair of ints, got (1, 1.5) of type tuple"),
    ("a string dilation", {"dilation": "2"}, TypeError, "expected dilation to be an int or a pair"),
    ("no output_padding", {"output_padding": None}, TypeError, "expected output_padding to be"),
    ("float groups", {"groups": 1.0}, TypeError, "expected groups to be an int, got 1.0"),
    ("three strides", {"stride": (1, 2, 3)}, RuntimeError,
     "expected stride to be an int or a pair of ints, got (1, 2, 3)"),
    ("no strides", {"stride": []}, RuntimeError, "expected stride to be an int or a pair of ints"),
    ("input of rank 2", {"input": torch.ones(5, 6)}, RuntimeError,
     "expected input to have 4 dimensions [N, C, H, W], or 3 if it is unbatched, got [5, 6]"),
    ("input of rank 5", {"input": torch.ones(1, 1, 4, 5, 6)}, RuntimeError,
     "got [1, 1, 4, 5, 6]"),
    ("weight of rank 3", {"weight": torch.ones(4, 3, 3)}, RuntimeError,
     "expected weight to have 4 dimensions [in_channels, out_channels / groups, kH, kW], "
     "got [4, 3, 3]"),
    ("3 channels for 4", {"input": torch.ones(2, 3, 5, 6)}, RuntimeError,
     "expected input to have 4 channels for weight of size [4, 3, 3, 2], "
     "got input of size [2, 3, 5, 6]"),
    ("groups of 3 in 4", {"groups": 3, "bias": None}, RuntimeError, "divisible by groups=3, got 4"),
    ("no groups", {"groups": 0}, RuntimeError, "expected groups to be positive, got 0"),
    ("negative groups", {"groups": -1}, RuntimeError, "expected groups to be positive, got -1"),
    ("bias too long", {"bias": torch.ones(4)}, RuntimeError,
     "expected bias to be 1-dimensional with 3 elements, got size [4]"),
    ("bias of rank 2", {"bias": torch.ones(3, 1)}, RuntimeError, "got size [3, 1]"),
    ("scalar bias", {"bias": torch.tensor(1.0)}, RuntimeError, "got size []"),
    ("weight in double", {"weight": GOOD["weight"].double()}, RuntimeError,
     "expected weight to have the dtype of input"),
    ("bias in half", {"bias": GOOD["bias"].half()}, RuntimeError,
     "expected bias to have the dtype of input"),
    ("stride 0", {"stride": (2, 0)}, RuntimeError, "expected stride to be positive, got (2, 0)"),
    ("padding -1", {"padding": (-1, 0)}, RuntimeError,
     "expected padding to be non-negative, got (-1, 0)"),
    ("dilation 0", {"dilation": 0}, RuntimeError, "expected dilation to be positive, got (0, 0)"),
    ("output_padding -1", {"output_padding": -1}, RuntimeError,
     "expected output_padding to be non-negative, got (-1, -1)"),
    ("output_padding of a stride", {"stride": 2, "output_padding": (1, 2)}, RuntimeError,
     "expected output_padding to be smaller than stride or dilation, got output_padding=(1, 2), "
     "stride=(2, 2), dilation=(1, 1)"),
    ("padding over all", {"padding": 9}, RuntimeError, "expected a positive output size, got (-11"),
    ("no height", {"input": torch.ones(2, 4, 0, 6)}, RuntimeError,
     "expected input height and width to be positive, got (0, 6)"),
    ("no kernel", {"weight": torch.ones(4, 3, 0, 2)}, RuntimeError,
     "expected kernel_size to be positive, got (0, 2)"),
    ("no channels", {"input": torch.ones(2, 0, 5, 6), "weight": torch.ones(0, 3, 3, 2)},
     RuntimeError, "expected at least one channel, got 0 in and 3 out"),
    ("output size overflows", {"stride": TOO_MANY}, RuntimeError, "the output size overflows"),
    ("output numel overflows", {"stride": 2**40}, RuntimeError, "more than 2^63 bytes"),
]  # fmt: skip
TABLE = pytest.mark.parametrize(
    ("changes", "kind", "text"), [row[1:] for row in BAD], ids=[row[0] for row in BAD]
)


def meta(value):
    return value.to("meta") if isinstance(value, torch.Tensor) else value


def raises(kind, text):
    return pytest.raises(kind, match=re.escape("conv_transpose2d: ") + ".*" + re.escape(text))


@TABLE
def test_conv_transpose2d_refuses(changes, kind, text):
    with raises(kind, text) as ours:
        convt.conv_transpose2d(**GOOD | changes)
    if changes.get("stride") != 2**40:  # torch would ask for all of the memory first
        with pytest.raises(kind) as theirs:
            F.conv_transpose2d(**GOOD | changes)
        assert isinstance(ours.value, TypeError) == isinstance(theirs.value, TypeError)


@TABLE
def test_meta_tensors_and_explain_are_refused_alike(changes, kind, text):
    arguments = {name: meta(value) for name, value in (GOOD | changes).items()}
    with raises(kind, text):
        convt.explain(**arguments, arch="sm_89")
    if "the dtype of input" in text:  # as torch, which asks for sizes alone
        size = F.conv_transpose2d(**arguments).shape
        assert convt.conv_transpose2d(**arguments).shape == size
        return
    with raises(kind, text):
        convt.conv_transpose2d(**arguments)


@TABLE
def test_a_refused_call_allocates_nothing_and_changes_nothing(changes, kind, text):
    arguments = GOOD | changes
    tensors = [value for value in arguments.values() if isinstance(value, torch.Tensor)]
    before = [(tensor.clone(), tensor._version) for tensor in tensors]
    cpu = [torch.profiler.ProfilerActivity.CPU]
    profiler = torch.profiler.profile(activities=cpu, profile_memory=True)
    with profiler as profile, pytest.raises(kind):
        convt.conv_transpose2d(**arguments)
    assert sum(abs(event.self_cpu_memory_usage) for event in profile.events()) == 0
    for tensor, (value, version) in zip(tensors, before, strict=True):
        assert torch.equal(tensor, value)
        assert tensor._version == version


@pytest.mark.parametrize("argument", ["weight", "bias"])
def test_devices_have_to_agree(argument):
    text = f"expected {argument} to be on the device of input (cpu), got meta"
    with raises(RuntimeError, text):
        convt.conv_transpose2d(**GOOD | {argument: GOOD[argument].to("meta")})


@pytest.mark.parametrize("precision", ["bf16", "", 1, ["tf32"]])
def test_unknown_precision(precision):
    text = f"expected precision to be 'tf32', 'fp32', 'fp16' or None, got {precision!r}"
    with raises(ValueError, text):
        convt.conv_transpose2d(**GOOD, precision=precision)
    with raises(ValueError, text):
        convt.explain(**GOOD, precision=precision)
    with raises(ValueError, text):
        convt.ConvTranspose2d(4, 3, 3, precision=precision)


@pytest.mark.parametrize("arch", ["sm_", "ada", "8.9", True, 8.9, -89])
def test_unknown_architecture(arch):
    with pytest.raises(ValueError, match="expected arch to be like 'sm_89' or 89, or one of A100"):
        convt.explain(**GOOD, arch=arch)


def test_preload_needs_a_cuda_device():
    with pytest.raises(ValueError, match="preload: expected a CUDA device, got cpu"):
        convt.preload("cpu")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"geometry": [1, 1, 0, 0]}, "expected geometry to have 9 elements"),
        ({"precision": 3}, "expected precision to be 0 (fp32), 1 (tf32) or 2 (fp16), got 3"),
        ({"packed": torch.ones(4, 3, 2, 2)}, "expected packed to have the size of weight"),
        ({"packed": torch.ones(4, 3, 3, 2).half()}, "expected packed to have the dtype of input"),
        ({"input": torch.ones(4, 5, 6)}, "expected input to have 4 dimensions"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_the_op_itself_refuses(changes, text):
    good = {**GOOD, "geometry": [1, 1, 0, 0, 0, 0, 1, 1, 1], "precision": 0, "packed": None}
    with raises(RuntimeError, text):
        torch.ops.convt.conv_transpose2d(**good | changes)


def outcome(function, *arguments, **keywords):
    """The answer's dtype and values, or the exception's type and words, without C++ frames."""
    try:
        y = function(*arguments, **keywords)
    except Exception as error:
        return type(error), str(error).split("\n")[0]
    return y.dtype, y.tolist()


OTHER_DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.complex64, torch.complex128, torch.float64, torch.float8_e4m3fn,
]  # fmt: skip


@pytest.mark.parametrize("dtype", OTHER_DTYPES, ids=str)
def test_other_dtypes_are_answered_or_refused_as_torch_does(dtype):
    call = {name: value.to(dtype) for name, value in GOOD.items()}
    assert outcome(convt.conv_transpose2d, **call) == outcome(F.conv_transpose2d, **call)


def test_the_words_of_aten_come_through_the_op():
    words = ".*not implemented" if torch.__version__ >= (2, 13) else "the reason is on stderr"
    geometry = [1, 1, 0, 0, 0, 0, 1, 1, 1]
    x, weight, bias = (value.int() for value in GOOD.values())
    with pytest.raises(RuntimeError, match=f"aten::convolution failed: {words}"):
        torch.ops.convt.conv_transpose2d(x, weight, geometry, 0, bias)


@pytest.mark.parametrize("name", ["stride", "padding", "output_padding", "dilation", "groups"])
@pytest.mark.parametrize("value", [2**63, 2**64, (1, 2**63)])
def test_numbers_over_64_bits(name, value):
    if name == "groups" and isinstance(value, tuple):
        return
    kind = outcome(F.conv_transpose2d, **GOOD | {name: value})[0]
    with raises(kind, f"expected {name} to fit into 64 bits, got {value}"):
        convt.conv_transpose2d(**GOOD | {name: value})


def test_running_out_of_memory_is_torchs_own_error():
    image, weight = torch.empty(1, 1, 2**12, 2**12), torch.empty(1, 2**20, 1, 1)
    ours = outcome(convt.conv_transpose2d, image, weight)
    theirs = outcome(F.conv_transpose2d, image, weight)
    assert ours == theirs
    assert "can't allocate memory: you tried to allocate" in theirs[1]


@pytest.mark.parametrize("which", GOOD)
def test_negative_views(which):
    call = GOOD | {which: torch._neg_view(GOOD[which])}
    assert outcome(convt.conv_transpose2d, **call) == outcome(F.conv_transpose2d, **call)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("which", ["input", "weight"])
def test_meta_tensors_keep_channels_last(which, memory_format):
    values = GOOD | {which: GOOD[which].contiguous(memory_format=memory_format)}
    y = convt.conv_transpose2d(**{name: meta(value) for name, value in values.items()})
    assert y.is_meta
    assert y.stride() == F.conv_transpose2d(**values).stride()
