"""Planning is pure: every rule is checked here, without a GPU."""

import math
import re
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from convt import _C
from tests.planning import HEADLINE, Layer, gpu, plan_of_family, plan_of_kernel, variants

DENSE = Layer(2, 32, 64, (8, 16), (4, 4), (2, 2), (1, 1), why="four taps per output")
ARCH = _C.architectures("cubin")[0]
VARIANTS = variants()


def plan(layer, arch=ARCH, kind="cubin", **problem):
    """Of the best kernel: whether ATen is quicker is not what these tests are about."""
    return plan_of_kernel(layer.problem(**problem), gpu(arch, kind))


def plan_of(family, layer, arch=ARCH, **problem):
    return plan_of_family(family, layer.problem(**problem), gpu(arch))


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(
    ("dtype", "precision"),
    [("f32", "fp32"), ("f32", "tf32"), ("f32", "fp16"), ("f16", "tf32"), ("bf16", "tf32")],
)
@pytest.mark.parametrize("layer", [HEADLINE, DENSE], ids=["single tap", "several taps"])
def test_every_dtype_layout_and_precision_is_served(layer, dtype, precision, layout):
    chosen = plan(layer, dtype=dtype, precision=precision, layout=layout)
    assert chosen.served
    variant = VARIANTS[chosen.variant]
    assert (variant["dtype"], variant["layout"]) == (dtype, layout)
    if dtype == "f32":
        needed = chosen.problem.needed_precision
        assert variant["precision"] in {"fp32": ["fp32"], "tf32": ["tf32", "fp32"],
                                        "fp16": ["tf32", "fp32"]}[needed]  # fmt: skip
        more_accurate = variant["precision"] != precision
        assert ("more accurate than asked for" in repr(chosen)) == more_accurate


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "single"),
    [(1, 2, 1, True), (3, 3, 1, True), (3, 2, 1, False), (3, 5, 2, True), (2, 4, 2, True),
     (3, 4, 2, False), (1, 3, 1, True), (16, 16, 1, True), (2, 17, 1, False)],
)  # fmt: skip
def test_layers_with_at_most_one_tap_per_output_have_kernels_of_their_own(
    kernel, stride, dilation, single, layout
):
    # Of 7 columns: a kernel of 16 has more taps than a piece of a row has room for.
    layer = Layer(
        2, 16, 16, (5, 7), (min(kernel, 8), kernel), (stride,) * 2, dilation=(dilation,) * 2
    )
    family = VARIANTS[plan(layer, layout=layout).variant]["family"]
    wide_kernel = kernel == 16 and layout == "nchw"
    several_taps = kernel > stride // math.gcd(stride, dilation)
    general = "implicit_gemm" if several_taps else "phase"
    expected = f"single_tap_{layout}" if single and not wide_kernel else general
    if layout == "nhwc" and (kernel, stride) == (3, 3):  # every output has one tap
        expected = "pixel_shuffle_nhwc"
    assert family == expected


@pytest.mark.parametrize(
    ("change", "family"),
    [
        ({}, "pixel_shuffle"),
        ({"kernel": (5, 2), "stride": (5, 2)}, "pixel_shuffle"),  # any height
        ({"kernel": (2, 1), "stride": (2, 1)}, "phase"),  # of widths 2 and 4
        ({"kernel": (2, 3), "stride": (2, 3)}, "single_tap_nchw"),
        ({"padding": (0, 1)}, "single_tap_nchw"),
        ({"output_padding": (1, 0)}, "single_tap_nchw"),
        ({"dilation": (1, 2)}, "implicit_gemm"),  # two taps
        ({"stride": (2, 3)}, "single_tap_nchw"),
    ],
)
def test_blocks_of_outputs_are_shuffled_pixels(change, family):
    layer = replace(Layer(2, 96, 32, (8, 16), (2, 2), (2, 2)), **change)
    if family == "single_tap_nchw":
        layer = replace(layer, in_channels=32)  # all it takes at once
    assert VARIANTS[plan(layer).variant]["family"] == family
    assert VARIANTS[plan(layer, layout="nhwc").variant]["family"] != "pixel_shuffle"


SHALLOW = Layer(16, 32, 64, (64, 128), (4, 4), (4, 4), why="k4s4, 1024 tiles of pixels")


@pytest.mark.parametrize(
    ("change", "dtype", "family"),
    [
        ({}, "f32", "pixel_shuffle_shallow"),
        ({}, "f16", "pixel_shuffle_shallow"),
        ({"in_channels": 33}, "f32", "pixel_shuffle"),  # more than a program holds
        ({"kernel": (4, 1), "stride": (4, 1)}, "f32", "pixel_shuffle"),
        ({"size": (63, 124)}, "f32", "pixel_shuffle_shallow"),
        ({"size": (63, 127)}, "f32", "pixel_shuffle"),  # no 16-byte vectors of pixels
        ({"batch": 1, "size": (8, 16)}, "f32", "pixel_shuffle_shallow"),
        ({"batch": 1, "size": (8, 16)}, "f16", "pixel_shuffle"),  # too little to stay for
    ],
)
def test_what_a_shallow_pixel_shuffle_serves(change, dtype, family):
    served = plan_of("pixel_shuffle_shallow", replace(SHALLOW, **change), dtype=dtype) is not None
    assert served == (family == "pixel_shuffle_shallow")


@given(
    batch=st.integers(1, 64),
    out_channels=st.integers(1, 300),
    size=st.tuples(st.integers(1, 300), st.integers(1, 75).map(lambda quads: 4 * quads)),
    kernel_h=st.integers(1, 9),
    groups=st.sampled_from([1, 2]),
)
def test_programs_of_a_shallow_pixel_shuffle_take_everything_at_once(
    batch, out_channels, size, kernel_h, groups
):
    layer = Layer(batch, 32 * groups, out_channels * groups, size, (kernel_h, 4), (kernel_h, 4),
                  groups=groups)  # fmt: skip
    chosen = plan_of("pixel_shuffle_shallow", layer, arch=89)
    variant = VARIANTS[chosen.variant]
    held, channels = variant["constants"]["HELD"], variant["constants"]["BLOCK_OUT"]
    items, tiles = chosen.arguments["items"], chosen.arguments["tiles"]
    programs, parts, _ = chosen.grid
    all_tiles = kernel_h * math.ceil(out_channels / channels)
    assert items == batch * math.ceil(size[0] * size[1] / 128)
    assert tiles <= held
    assert parts == groups * math.ceil(all_tiles / tiles)
    # 80 KiB of shared memory: one program for each multiprocessor of an RTX 4090.
    assert programs <= items
    assert programs * parts <= max(128, parts)


# What TF32's products may be made with, contiguous and in channels_last.
NEEDED = [
    (Layer(8, 64, 3, (64, 64), (4, 4), (2, 2), (1, 1), why="three output channels"), "fp32 fp32"),
    (Layer(8, 512, 1, (64, 64), (5, 5), (1, 1), (2, 2), why="one, many products"), "fp32 fp32"),
    (Layer(8, 64, 4, (64, 64), (4, 4), (2, 2), (1, 1), why="four"), "fp32 tf32"),
    (Layer(8, 64, 8, (64, 64), (4, 4), (2, 2), (1, 1), why="eight"), "fp32 tf32"),
    (Layer(8, 256, 16, (64, 64), (4, 4), (2, 2), (1, 1), why="sixteen"), "tf32 tf32"),
    (Layer(8, 512, 16, (64, 64), (2, 2), (2, 2), why="one tap, sixteen"), "tf32 fp32"),
    (Layer(8, 512, 32, (64, 64), (2, 2), (2, 2), why="one tap, 32"), "tf32 tf32"),
    (Layer(2, 64, 64, (64, 64), (16, 16), (2, 2), (7, 7), groups=64, why="depthwise"), "fp32 fp32"),
    (Layer(8, 256, 256, (64, 64), (4, 4), (2, 2), groups=16, why="groups of 16"), "fp32 fp32"),
    (Layer(8, 96, 96, (64, 64), (4, 4), (2, 2), groups=3, why="groups of 32"), "tf32 tf32"),
    (Layer(8, 32, 32, (64, 64), (2, 2), (2, 2), why="12.8 flops a byte"), "fp32 fp32"),
    (Layer(8, 4, 64, (64, 64), (4, 4), (2, 2), (1, 1), why="7.9 flops a byte"), "fp32 fp32"),
    (Layer(8, 64, 64, (64, 64), (2, 2), (2, 2), why="25.6 flops a byte"), "tf32 tf32"),
    (Layer(1, 256, 128, (8, 8), (4, 4), (2, 2), (1, 1), why="67 Mflop"), "fp32 tf32"),
    (Layer(1, 64, 32, (8, 8), (4, 4), (2, 2), (1, 1), why="4.2 Mflop"), "fp32 fp32"),
    (Layer(8, 512, 512, (14, 14), (3, 3), (1, 1), (1, 1), why="deep"), "tf32 tf32"),
]


@pytest.mark.parametrize(("layer", "needed"), NEEDED, ids=lambda value: getattr(value, "why", ""))
def test_products_are_no_less_accurate_than_cudnns_and_fp32s_where_those_cost_no_time(
    layer, needed
):
    for layout, expected in zip(("nchw", "nhwc"), needed.split(), strict=True):
        assert layer.problem("f32", "tf32", layout).needed_precision == expected
        assert layer.problem("f32", "fp32", layout).needed_precision == "fp32"
        assert layer.problem("f32", "fp16", layout).needed_precision == "fp16"  # asked for by name
        chosen = plan(layer, precision="tf32", layout=layout)
        exceeds = VARIANTS[chosen.variant]["precision"] == "fp32"
        assert exceeds or expected == "tf32"
        assert ("more accurate than asked for" in repr(chosen)) == exceeds


def test_a_pixel_shuffle_is_as_accurate_as_is_free():
    shallow, deep = (Layer(8, into, 64, (64, 64), (2, 2), (2, 2)) for into in (32, 64))
    assert VARIANTS[plan(shallow, precision="tf32").variant]["precision"] == "fp32"
    assert VARIANTS[plan(deep, precision="tf32").variant]["precision"] == "tf32"


@pytest.mark.parametrize("layer", [
    Layer(12, 64, 32, (256, 256), (2, 2), (2, 2), why="half of a wide tile"),
    Layer(8, 1280, 512, (64, 64), (2, 2), (2, 2), why="compute-bound"),
], ids=lambda layer: layer.why)  # fmt: skip
def test_a_wide_tile_is_taken_where_it_is_filled(layer):
    constants = VARIANTS[plan(layer, dtype="f16").variant]["constants"]
    assert constants["BLOCK_OUT"] == (64 if layer.out_channels == 512 else 32)


@pytest.mark.parametrize(
    ("change", "family"),
    [
        ({}, "single_tap_nchw"),
        ({"in_channels": 64}, "single_tap_nchw"),
        ({"in_channels": 65}, "phase"),  # more than a program holds
        ({"stride": (8, 5)}, "single_tap_nchw"),
        ({"stride": (17, 5)}, "phase"),
        ({"stride": (5, 6)}, "phase"),  # no image in shared memory is so sparse
        ({"dilation": (2, 2)}, "single_tap_nchw"),
        ({"dilation": (2, 27), "size": (5, 20)}, "phase"),  # taps reach into the next row of it
        ({"size": (5, 1), "padding": (0, 0)}, "phase"),  # rows shorter than a sector
    ],
)
def test_what_single_tap_nchw_serves(change, family):
    layer = replace(Layer(2, 32, 16, (5, 7), (3, 3), (5, 5), (1, 1)), **change)
    assert VARIANTS[plan(layer).variant]["family"] == family


def test_channels_of_a_program_are_planes_that_begin_alike_in_a_sector():
    def step(size, dtype, stride=5, out_channels=64):
        layer = Layer(100, 8, out_channels, size, (3, 3), (stride, stride))
        return 1 << plan(layer, dtype=dtype).arguments["log2_step"]

    # Planes of 13 x 23, 13 x 38, 18 x 38, 8 x 48 outputs.
    sizes = [(3, 5), (3, 8), (4, 8), (2, 10)]
    assert [step(size, "f32") for size in sizes] == [8, 4, 2, 1]
    # Half a sector for the first: its input's rows are odd.
    assert [step(size, "f16") for size in sizes] == [8, 8, 4, 1]
    # And for odd planes, 11 x 23, of so few channels that tiles of 8 would have 4.
    assert [step((3, 6), "f16", 4, channels) for channels in (64, 128)] == [8, 16]


def test_pairs_of_pixels_are_copied_where_every_program_begins_with_one():
    layer = Layer(2, 32, 16, (5, 140), (3, 3), (5, 5), (1, 1))

    def copied(layer, dtype="f16", **options):
        return VARIANTS[plan(layer, dtype=dtype, **options).variant]["constants"]["COPIED"]

    assert copied(layer) == 2
    assert plan(layer, dtype="f16").arguments["tile_w"] % 2 == 0
    assert copied(layer, aligned=False) == 0
    assert copied(replace(layer, size=(5, 141))) == 0
    assert copied(layer, dtype="f32", aligned=False) == 1


def test_rows_of_the_shared_image_are_apart_enough():
    for variant in VARIANTS.values():
        if variant["family"] == "single_tap_nchw":
            # csrc/families/single_tap_nchw.cpp, kReach, and a sector of 16-bit outputs
            assert variant["constants"]["GAP"] >= 48 + 16


def test_stores_are_as_wide_as_the_rows_allow():
    def vector(out_w, dtype):
        layer = Layer(1, 16, 16, (4, out_w // 2), (2, 2), (2, 2))
        return re.search(r"v(\d)_", plan_of("pixel_shuffle", layer, dtype=dtype).variant)[1]

    assert [vector(width, "f32") for width in (64, 62)] == ["4", "2"]
    assert [vector(width, "f16") for width in (64, 60)] == ["8", "2"]


def test_plan_is_deterministic_and_prints_itself():
    chosen = plan(HEADLINE)
    assert repr(chosen) == repr(plan(HEADLINE))
    for part in (chosen.variant, f"sm_{ARCH}", "grid", "[16, 32, 64, 128] -> [16, 64, 318, 638]"):
        assert part in repr(chosen)


def test_ptx_plan_says_that_the_driver_compiles():
    chosen = plan(HEADLINE, arch=89, kind="ptx")
    assert chosen.served
    assert "PTX, which the driver compiles at first use" in repr(chosen)


@pytest.mark.parametrize(
    ("layer", "problem", "reason"),
    [
        (HEADLINE, {"dtype": "other"}, "only fp32, fp16 and bf16 have kernels"),
        (HEADLINE, {"arch": 0}, "no CUDA device that this build has kernels for"),
        (replace(HEADLINE, batch=0), {}, "the output is empty"),
        (Layer(stride=(40000, 1)), {}, "a stride is over 32768"),
        (Layer(size=(1, 2**31)), {}, "a size is over 2^30"),
        (Layer(batch=2**29, kernel=(1, 1), stride=(30, 30)), {}, "too large for one grid"),
        (Layer(1, 1, 2**20, kernel=(50, 50)), {}, "too large for one grid or for 32-bit weight"),
    ],
)
def test_what_no_kernel_serves_goes_to_aten_with_the_reason(layer, problem, reason):
    chosen = plan(layer, **problem)
    assert not chosen.served
    assert chosen.variant is None
    assert reason in chosen.reason
    assert repr(chosen).startswith(f"ATen: {chosen.reason}")


def test_vectors_need_aligned_tensors_and_channels():
    def aligned(layer, dtype="f32", aligned=True):
        problem = layer.problem(dtype, "fp32", "nhwc", aligned)
        chosen = plan_of_family("phase", problem, gpu(ARCH))
        return VARIANTS[chosen.variant]["traits"]["aligned"]

    layer = Layer(2, 64, 64, (32, 32))
    assert aligned(layer)
    assert not aligned(layer, aligned=False)
    odd = replace(layer, in_channels=66, out_channels=66)
    assert not aligned(odd)
    # Eight fp16 lanes in a group: 64 channels in 16 groups have four.
    grouped = replace(layer, groups=16)
    assert not aligned(grouped, "f16")
    assert aligned(grouped)


def test_offsets_are_64_bit_only_where_an_image_needs_them():
    big_batch = Layer(512, 64, 64, (256, 256), (2, 2), (2, 2), why="2^33 outputs, 2^24 an image")
    big_image = Layer(1, 64, 64, (4096, 4096), (4, 4), (2, 2), why="2^32 outputs in one image")

    def wide(layer):
        return VARIANTS[plan(layer).variant]["traits"].get("wide", 0)

    assert not wide(big_batch)
    assert wide(big_image)
    one_tap = replace(big_image, kernel=(2, 2))
    assert not wide(one_tap)  # its programs start from a channel's plane
    huge_planes = replace(one_tap, size=(2**14, 2**14))
    assert wide(huge_planes)
    far_taps = Layer(1, 64, 64, (2, 2**14), (2**12, 1), why="taps begin 2^12 rows past the image")
    assert wide(far_taps)


@pytest.mark.parametrize(
    ("arch", "force", "jit", "expected"),
    [
        (89, 0, True, (89, "cubin")),
        (75, 0, True, (0, "cubin")),
        (121, 0, True, (89, "ptx")),
        (121, 0, False, (0, "cubin")),
        (90, 89, True, (89, "ptx")),
        (90, 89, False, (0, "cubin")),
    ],
)
def test_target_selection(arch, force, jit, expected):
    assert _C.select_target(arch, force, jit) == expected


def test_architecture_specific_cubins_do_not_load_elsewhere():
    # sm_90 code is compiled for sm_90a; it would fail to load on a (hypothetical) 9.1.
    assert _C.select_target(91, 0, False)[0] == 0


def expected_arguments(layer):
    """What the kernel is told of the geometry, in plain Python."""
    values = {}
    for axis, name in enumerate("hw"):
        s, d, k = layer.stride[axis], layer.dilation[axis], layer.kernel[axis]
        out = (
            (layer.size[axis] - 1) * s - 2 * layer.padding[axis] + d * (k - 1)
            + layer.output_padding[axis] + 1
        )  # fmt: skip
        gcd = math.gcd(s, d)
        period = s // gcd
        values |= {
            f"gcd_{name}": gcd,
            f"tap_period_{name}": period,
            f"tap_inverse_{name}": pow(d // gcd, -1, period) if period > 1 else 0,
            f"tap_shift_{name}": d // gcd,
            f"quotients_{name}": -(-out // s),
            f"out_{name}": out,
        }
    return values


sizes = st.integers(1, 40)
strides = st.integers(1, 16)  # all that tables have room for
any_layer = st.builds(
    Layer,
    st.integers(1, 70),
    st.just(24),
    st.just(40),
    st.tuples(sizes, sizes),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(strides, strides),
    dilation=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    groups=st.just(2),
)


def is_single_tap(layer):
    return all(
        k * math.gcd(s, d) <= s
        for k, s, d in zip(layer.kernel, layer.stride, layer.dilation, strict=True)
    )


@settings(max_examples=200, deadline=None)
@given(layer=any_layer.filter(lambda layer: not is_single_tap(layer)))
def test_arguments_and_grid_follow_the_geometry(layer):
    batch, stride = layer.batch, layer.stride
    chosen = plan_of("phase", layer)
    arguments = chosen.arguments
    for name, value in expected_arguments(layer).items():
        assert arguments[name] == value, name
    constants = VARIANTS[chosen.variant]["constants"]
    images = constants["BLOCK_PIXELS"] >> (arguments["log2_tile_h"] + arguments["log2_tile_w"])
    assert images >= 1
    boxes = (
        math.ceil(arguments["quotients_h"] / (1 << arguments["log2_tile_h"]))
        * math.ceil(arguments["quotients_w"] / (1 << arguments["log2_tile_w"]))
        * math.ceil(batch / images)
    )
    phases = stride[0] * stride[1]
    out_tiles = math.ceil(20 / constants["BLOCK_OUT"])
    assert chosen.grid == (boxes * phases * out_tiles * 2, 1, 1)


def outputs_of(layer, axis):
    """{output: (tap or None, input)} of an axis on which outputs have at most one tap."""
    s, d, k, p = (t[axis] for t in (layer.stride, layer.dilation, layer.kernel, layer.padding))
    out = (layer.size[axis] - 1) * s - 2 * p + d * (k - 1) + layer.output_padding[axis] + 1
    owners = {}
    for o in range(out):
        taps = [tap for tap in range(k) if (o + p - tap * d) % s == 0]
        assert len(taps) <= 1
        owners[o] = (taps[0], (o + p - taps[0] * d) // s) if taps else (None, (o + p) // s)
    return owners


def residues_of(chosen, layer, axis):
    """Those of an axis, as the plan lists them."""
    table = chosen.arguments["residues_" + "hw"[axis]]
    return [table >> 4 * place & 15 for place in range(layer.stride[axis])]


def ordered_residues(layer, axis):
    s, d, k = (t[axis] for t in (layer.stride, layer.dilation, layer.kernel))
    tapped = [tap * d % s for tap in range(k)]
    return tapped + [residue for residue in range(s) if residue not in tapped]


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "residues"),
    [
        (3, 5, 2, [0, 2, 4, 1, 3]),
        (3, 5, 3, [0, 3, 1, 2, 4]),
        (1, 4, 7, [0, 1, 2, 3]),
        (2, 6, 3, [0, 3, 1, 2, 4, 5]),
        (3, 3, 2, [0, 2, 1]),
        (1, 16, 1, [*range(16)]),  # the last of 64 bits is a sign
        (5, 16, 5, [0, 5, 10, 15, 4, 1, 2, 3, 6, 7, 8, 9, 11, 12, 13, 14]),
    ],
)
def test_residues_with_a_tap_are_first(kernel, stride, dilation, residues):
    layer = Layer(1, 8, 8, (2, 3), (kernel, 1), (stride, 1), dilation=(dilation, 1))
    assert residues_of(plan(layer, layout="nhwc"), layer, axis=0) == residues


@pytest.mark.parametrize(
    ("change", "dtype", "tiles", "why"),
    [
        ({"batch": 64, "size": (1, 1000), "padding": (1, 1)}, "f32", 3,
         "two kernel rows of three have no outputs"),
        ({"batch": 64, "size": (1, 1000), "padding": (1, 1)}, "f16", 2,
         "two kernel rows of three have no outputs"),
        ({"stride": (4, 4), "dilation": (1, 1)}, "f32", 4, "most have one"),
        ({"stride": (4, 4), "dilation": (1, 1)}, "f16", 3, "most have one"),
        ({"kernel": (2, 1), "stride": (2, 2), "dilation": (1, 1)}, "f32", 3, "half have one"),
        ({"stride": (3, 3), "dilation": (1, 1), "batch": 256}, "f32", 6, "all have one"),
        ({"kernel": (2, 2), "stride": (2, 2), "dilation": (1, 1)}, "f32", 4,
         "six would leave a last wave a third full"),
        ({"stride": (3, 3), "dilation": (1, 1)}, "f16", 4, "all have one"),
        ({"stride": (3, 3), "dilation": (1, 1), "batch": 1, "size": (16, 128)}, "f32", 1,
         "too few programs to fill the machine else"),
    ],
)  # fmt: skip
def test_tiles_of_an_nhwc_program(change, dtype, tiles, why):
    layer = replace(HEADLINE, **{"padding": (0, 0), **change})
    chosen = plan_of("single_tap_nhwc", layer, dtype=dtype, layout="nhwc")
    assert chosen.arguments["tiles"] == tiles, why


# Multiprocessors that the planner expects.
SMS = {80: 108, 86: 84, 89: 128, 90: 132, 100: 148, 120: 170}


@pytest.mark.parametrize("arch", _C.architectures("cubin"))
@pytest.mark.parametrize(
    ("change", "dtype", "tiles"),
    [
        ({}, "f32", 3),
        ({}, "f16", 2),
        ({"kernel": (1, 1), "stride": (2, 2), "batch": 32}, "f32", 2),
        ({"in_channels": 64}, "f32", 3),
        ({"in_channels": 64}, "f16", 2),
    ],
)
def test_one_tile_where_stores_of_other_outputs_hide_it(change, dtype, tiles, arch):
    chosen = plan(replace(HEADLINE, **change), arch, dtype=dtype, layout="nhwc")
    hidden = chosen.resident >= 4 * SMS[arch]
    assert chosen.arguments["tiles"] == (1 if hidden else tiles)


def sparse(batch, in_channels, size, dtype):
    """A plan of the channels_last family for inputs of any size."""
    layer = Layer(batch, in_channels, 8, size, (1, 1), (2, 2))
    return plan_of("single_tap_nhwc", layer, dtype=dtype, layout="nhwc")


@given(
    batch=st.integers(1, 300),
    in_channels=st.sampled_from([8, 56]),  # 56: images that end within a line of 128 bytes
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    dtype=st.sampled_from(["f32", "f16"]),
)
def test_a_slab_is_what_programs_of_a_mebibyte_read(batch, in_channels, size, dtype):
    chosen = sparse(batch, in_channels, size, dtype)
    slab, slab_lines, lines = (chosen.arguments[n] for n in ("slab", "slab_lines", "input_lines"))
    positions = chosen.grid[2]
    numel = batch * in_channels * size[0] * size[1]
    assert lines == math.ceil(numel * (4 if dtype == "f32" else 2) / 128)
    assert 1 <= slab <= positions
    mebibyte = 2**20 / 128 * positions / lines
    assert slab == 1 or slab <= mebibyte
    assert slab == positions or slab + 1 > mebibyte
    assert slab_lines == math.ceil(lines * slab / positions)


@pytest.mark.parametrize(
    ("dtype", "channels", "stride", "prefetched", "why"),
    [
        ("f16", 64, 3, True, "few products of 16 bits"),
        ("f32", 32, 3, True, "few channels"),
        ("f32", 64, 3, False, "products of 64 channels bound it"),
        ("f32", 64, 5, True, "most outputs have no tap"),
    ],
)
def test_the_input_is_prefetched_where_memory_bounds_a_layer(
    dtype, channels, stride, prefetched, why
):
    layer = replace(HEADLINE, in_channels=channels, stride=(stride,) * 2, dilation=(1, 1))
    assert (plan(layer, dtype=dtype, layout="nhwc").arguments["input_lines"] > 0) == prefetched


@pytest.mark.parametrize(
    ("batch", "size", "lines"),
    [(2**14, (2**10, 2**6), 2**30), (2**15, (2**10, 2**7), 0)],
    ids=["128 GiB", "512 GiB, without prefetches"],
)
def test_what_prefetches_count_fits_32_bits(batch, size, lines):
    chosen = sparse(batch, 64, size, "f16")
    slab, slab_lines = chosen.arguments["slab"], chosen.arguments["slab_lines"]
    x, y, z = chosen.grid
    assert chosen.arguments["input_lines"] == lines
    assert ((z - 1) // slab + 3) * slab_lines + x * y * 128 < 2**31


@pytest.mark.parametrize(
    ("layer", "channels"),
    [
        (Layer(2, 4, 1, (2, 2**18), (1, 1), (2, 2), output_padding=(1, 1),
               why="two rows of inputs own 2^21 outputs of each channel"), 2**10 - 4),
        (Layer(2, 4, 1, (1, 1), (1, 1), (16, 16), output_padding=(15, 15),
               why="64 pixels of a tile of one are 2^8 outputs of each channel apart"), 2**17 - 4),
        (Layer(1, 4, 1, (1, 1), (1, 2), (1, 2), (0, 2**27), dilation=(1, 2**28 + 1),
               why="2^29 threads for each 64 channels, for taps of padding"), 3 * 64),
    ],
    ids=lambda value: getattr(value, "why", ""),
)  # fmt: skip
def test_what_a_channels_last_program_counts_fits_32_bits(layer, channels):
    def served(channels):
        changed = replace(layer, out_channels=channels)
        return plan_of("single_tap_nhwc", changed, layout="nhwc")

    assert served(channels)
    assert not served(channels + 4)


@pytest.mark.parametrize(("channels", "tiles"), [(2**10, 6), (2**14, 1)])
def test_a_program_of_two_images_is_within_32_bits(channels, tiles):
    # Of two rows of outputs, taps ask for inputs 1001 rows apart: as many tiles, all but one empty.
    layer = Layer(8, 8, channels, (1, 64), (2, 2), (2, 2), (1000, 0), dilation=(2001, 1))
    chosen = plan_of("single_tap_nhwc", layer, layout="nhwc")
    assert chosen.arguments["tiles_h"] == 1001
    assert chosen.arguments["tiles"] == tiles


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(2, 2, 3), (3, 3, 2), (3, 4, 3)])
def test_taps_that_reach_past_the_image_ask_for_no_second_nchw_program(kernel, stride, dilation):
    sizes = {"kernel": (kernel,) * 2, "stride": (stride,) * 2, "dilation": (dilation,) * 2}
    chosen = plan(replace(HEADLINE, padding=(0, 0), **sizes))
    assert (chosen.arguments["first_w"], chosen.arguments["tiles_w"]) == (0, 1)


@pytest.mark.parametrize(
    ("change", "dtype", "tiles", "why"),
    [
        ({}, "f32", 1, "memory is busy with outputs that have no tap"),
        ({}, "f16", 1, "memory is busy with outputs that have no tap"),
        ({"stride": (3, 3), "dilation": (1, 1)}, "f32", 4, "every output has a tap"),
        ({"stride": (3, 3), "dilation": (1, 1)}, "f16", 3, "every output has one, none is split"),
        ({"batch": 1}, "f32", 2, "all programs at once, not one wave and a third"),
        ({"batch": 1, "size": (8, 128)}, "f16", 1, "programs for half the machine at the best"),
    ],
)
def test_channel_tiles_of_an_nchw_program(change, dtype, tiles, why):
    chosen = plan(replace(HEADLINE, **change), dtype=dtype)
    assert chosen.arguments["tiles"] == tiles, why


@settings(max_examples=200, deadline=None)
@given(layer=any_layer.filter(is_single_tap), layout=st.sampled_from(["nchw", "nhwc"]))
def test_tap_tables_are_those_of_the_geometry(layer, layout):
    chosen = plan(layer, layout=layout)
    # Others need no tables; phase has what has more taps than any tile has room for.
    assume(VARIANTS[chosen.variant]["family"].startswith("single_tap"))
    arguments = chosen.arguments
    outside = False
    for axis, name in enumerate("hw"):
        owners = outputs_of(layer, axis)
        for o, (tap, _) in owners.items():
            residue = (o + layer.padding[axis]) % layer.stride[axis]
            if layout == "nchw":
                assert (arguments[f"empty_{name}"] >> residue & 1) == (tap is None)
        inputs = [i for _, i in owners.values()]
        outside |= min(inputs) < 0 or max(inputs) >= layer.size[axis]
        span = max(inputs) + 1 - min(inputs)
        first = min(inputs)
        if layout == "nchw" and name == "w":
            first = max(first, 0)  # outputs of columns outside the image need no product
        if f"first_{name}" in arguments:
            assert arguments[f"first_{name}"] == first
        if f"span_{name}" in arguments:
            assert arguments[f"span_{name}"] == span
        if layout == "nhwc":
            tiles = arguments["tiles_h"] if name == "h" else chosen.grid[0] // layer.kernel[1]
            assert tiles == math.ceil(span / arguments[f"tile_{name}"])
            assert residues_of(chosen, layer, axis) == ordered_residues(layer, axis)
    if layout == "nchw":
        reaches = [(o + layer.padding[1]) // layer.stride[1] - i for o, (_, i) in owners.items()]
        assert 0 <= max(reaches) <= arguments["halo_w"]
        # Programs' columns, and what taps reach over them, are all of the output.
        end = first + arguments["tile_w"] * arguments["tiles_w"]
        last_column = len(owners) - 1 + layer.padding[1]
        assert last_column < (end + arguments["halo_w"]) * layer.stride[1]
        stride = layer.stride[0]
        tap_of = {tap * layer.dilation[0] % stride: tap for tap in range(layer.kernel[0])}
        assert (arguments["empty_h"] >> stride & 1) == (0 not in tap_of)
        for residue, tap in tap_of.items():
            joined = arguments["joined_h"] >> 2 * tap
            assert (joined & 1) == ((residue - 1) % stride in tap_of)
            assert (joined >> 1 & 1) == ((residue + 1) % stride in tap_of)
        assert chosen.grid[1] == math.ceil(arguments["out_tiles"] / arguments["tiles"])
        assert chosen.grid[2] == layer.batch * layer.groups
    else:
        assert arguments["edges"] == (outside or layer.bias)
        constants = VARIANTS[chosen.variant]["constants"]
        out_tiles = math.ceil(layer.out_channels // layer.groups / constants["BLOCK_OUT"])
        assert chosen.grid[0] % layer.kernel[1] == 0
        assert chosen.grid[1] == layer.kernel[0] * layer.groups * out_tiles
        pixels = constants["BLOCK_PIXELS"]
        assert arguments["tile_h"] * arguments["tile_w"] <= pixels
        for pixel in range(pixels):
            assert pixel * arguments["inverse_w"] >> 16 == pixel // arguments["tile_w"]
        assert chosen.grid[2] == math.ceil(layer.batch * arguments["tiles_h"] / arguments["tiles"])
