"""Every kernel configuration that is compiled: an explicit, finite list. Imports no kernel."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import chain, product

DTYPE_BYTES = {"f32": 4, "f16": 2, "bf16": 2}
TRITON_TYPES = {"f32": "*fp32", "f16": "*fp16", "bf16": "*bf16"}
POINTERS = ("x", "weight", "bias", "y")
# 64-bit in wide variants; every offset is formed from one of these.
STRIDES = ("x_n", "x_c", "x_h", "x_w", "y_n", "y_c", "y_h", "y_w")

# 4 bits per residue of a stride up to 16, or 2 per tap.
TAP_TABLES = ("residues_h", "residues_w", "joined_h")

# (dtype, precision): how a problem's numbers are multiplied.
MATHS = (
    ("f32", "fp32"),
    ("f32", "tf32"),
    ("f32", "fp16"),
    ("f16", "native"),
    ("bf16", "native"),
)


@dataclass(frozen=True)
class Tile:
    """Work of one program: pixels x output channels (or columns), input channels per step."""

    pixels: int
    out: int
    into: int
    warps: int
    stages: int
    stride: int = 0  # across; 0 for any
    taps: int = 0  # kernel columns there is room for; 0 for any number
    held: int = 1  # tiles whose weights a program keeps


@dataclass(frozen=True)
class Variant:
    """One kernel configuration; everything the compiler and the planner need to know of it."""

    family: str
    dtype: str
    precision: str
    layout: str
    tile: Tile
    aligned: bool = False  # needs 16-byte vectors, or pairs of 16-bit numbers
    wide: bool = False  # 64-bit strides
    vector: int = 1  # outputs stored at once; divides a row, or the distance of a tile's planes
    deep: bool = True  # takes more input channels than a step's
    extra: tuple[tuple[str, int | bool], ...] = ()  # compile-time parameters of the family's own
    divisors: tuple[tuple[str, int], ...] = ()  # what divides a parameter (bytes for pointers)
    registers: tuple[int, ...] = ()  # a thread's at most; the first limit that it does not spill at

    @property
    def name(self) -> str:
        t = self.tile
        words = [self.family, self.dtype]
        if self.precision != "native":
            words.append(self.precision)
        if not self.family.endswith(self.layout):
            words.append(self.layout)
        words.append(f"{t.pixels}x{t.out}x{t.into}")
        if t.taps:
            words.append(f"s{t.stride}t{t.taps}v{self.vector}")
        words.append(f"w{t.warps}")
        words += [flag for flag, on in (("a16", self.aligned), ("i64", self.wide)) if on]
        return "_".join(words)

    def constants(self, parameters: Collection[str]) -> dict[str, int | bool | str]:
        """Values of a kernel's compile-time parameters, which are among `parameters`."""
        values: dict[str, int | bool | str] = {
            **dict(self.extra),
            "PRECISION": self.precision,
            "BLOCK_PIXELS": self.tile.pixels,
            "BLOCK_OUT": self.tile.out,
            "BLOCK_IN": self.tile.into,
            "WARPS": self.tile.warps,
            "STRIDE": self.tile.stride,
            "TAPS": self.tile.taps,
            "HELD": self.tile.held,
            "VECTOR": self.vector,
            "SECTOR": self.vector,
            "DEEP": self.deep,
        }
        return {name: value for name, value in values.items() if name in parameters}

    def type_of(self, parameter: str) -> str:
        """Triton type of a run-time parameter."""
        if parameter in POINTERS:
            return TRITON_TYPES[self.dtype]
        if parameter in TAP_TABLES:
            return "i64"
        return "i64" if self.wide and parameter in STRIDES else "i32"

    def divisibility(self, parameter: str) -> int:
        """What the compiler may assume divides a parameter; 1 for nothing."""
        return dict(self.divisors).get(parameter, 1)


def _lanes(dtype: str) -> int:
    """Elements of a 16-byte vector."""
    return 16 // DTYPE_BYTES[dtype]


def _output_vectors(vector: int) -> tuple[tuple[str, int], ...]:
    """Divisors of a variant that stores so many columns of contiguous rows at once."""
    return ("y", 16), ("y_c", vector), ("out_w", vector)


def _channel_vectors(dtype: str, layout: str) -> tuple[tuple[str, int], ...]:
    """Divisors of a variant that loads vectors of channels."""
    pointers, integers = ["weight"], ["group_out"]
    if layout == "nhwc":  # in nchw, pixels start anywhere
        pointers += ["x", "y"]
        integers += ["group_in", *STRIDES]
    return (*((p, 16) for p in pointers), *((i, _lanes(dtype)) for i in integers))


@dataclass(frozen=True)
class Pack(Variant):
    """A copy of weights: its tile is taps x output channels."""

    @property
    def name(self) -> str:
        return f"pack_{self.dtype}_{self.tile.pixels}x{self.tile.out}_w{self.tile.warps}"

    def constants(self, parameters: Collection[str]) -> dict[str, int | bool | str]:
        return {"BLOCK_TAPS": self.tile.pixels, "BLOCK_OUT": self.tile.out}


def _pack() -> Iterator[Variant]:
    for dtype in DTYPE_BYTES:
        tile = Tile(16, 64, 1, warps=4, stages=1)
        yield Pack("pack", dtype, "native", "nhwc", aligned=False, wide=True, tile=tile)


def _phase() -> Iterator[Variant]:
    narrow = Tile(128, 16, 16, warps=4, stages=3)
    far = Tile(64, 32, 16, warps=4, stages=2)
    for dtype, precision in MATHS:
        # fp32 products hold split or converted operands in registers: smaller tiles, or they spill.
        if dtype == "f32":
            into = 16 if precision == "fp32" else 32
            large, medium = (
                Tile(128, 64, into, warps=8, stages=3),
                Tile(64, 32, 16, warps=4, stages=3),
            )
        else:
            large, medium = (
                Tile(128, 128, 32, warps=8, stages=3),
                Tile(64, 64, 32, warps=4, stages=3),
            )
        for layout in ("nchw", "nhwc"):
            innermost = ("x_c", "y_c") if layout == "nhwc" else ("x_w", "y_w")
            plain = Variant(
                "phase", dtype, precision, layout, narrow, extra=tuple((p, 1) for p in innermost)
            )
            for tile in (large, medium):
                divisors = _channel_vectors(dtype, layout)
                yield replace(plain, tile=tile, aligned=True, divisors=divisors)
            for tile in (medium, narrow):
                yield replace(plain, tile=tile)
            yield replace(plain, tile=far, wide=True)


# Memory-bound: fp32 accuracy costs them nothing, so they serve TF32's problems with it.
SINGLE_TAP_MATHS = (("f32", "fp32"), ("f16", "native"), ("bf16", "native"))


def _pixel_shuffle() -> Iterator[Variant]:
    # Of a stride of 1; a wider one has fewer channels of as many columns.
    steps = Tile(128, 64, 16, warps=4, stages=1)
    narrow, large = Tile(128, 64, 32, warps=4, stages=3), Tile(128, 128, 32, warps=4, stages=3)
    for (dtype, precision), stride in product(MATHS, (1, 2, 4, 8)):
        for tile in (narrow, large) if precision == "native" else (steps,):
            columns = replace(tile, out=tile.out // stride, stride=stride, taps=stride)
            plain = Variant(
                "pixel_shuffle",
                dtype,
                precision,
                "nchw",
                columns if precision == "native" else replace(columns, pixels=64),  # or it spills
                vector=stride,
                divisors=_output_vectors(stride),
            )
            if tile is not large:
                yield plain
            lanes = _lanes(dtype)
            vector = max(stride, lanes)
            divisors = (
                *_channel_vectors(dtype, "nchw"),
                ("x", 16),
                ("x_c", lanes),
                *_output_vectors(vector),
            )
            yield replace(plain, tile=columns, aligned=True, vector=vector, divisors=divisors)


def _pixel_shuffle_shallow() -> Iterator[Variant]:
    for (dtype, precision), stride in product(SINGLE_TAP_MATHS, (2, 4, 8)):
        lanes = _lanes(dtype)
        # fp32: half of the pixels for each warp, for their pieces need registers.
        warps, held, pixels = (8, 4, 2) if dtype == "f32" else (4, 8, 4)
        vector = min(lanes, pixels * stride)  # of neighbouring pixels that a thread has
        vectors = Variant(
            "pixel_shuffle_shallow",
            dtype,
            precision,
            "nchw",
            Tile(128, 64 // stride, 32, warps, stages=1, stride=stride, taps=stride, held=held),
            aligned=True,
            vector=vector,
            deep=False,
            divisors=(("x", 16), ("x_c", lanes), *_output_vectors(vector)),
            registers=(128, 168),
        )
        yield vectors
        if dtype == "f32":  # 16-bit numbers cannot be copied asynchronously one by one
            vector = min(lanes, stride)
            divisors = _output_vectors(vector)
            yield replace(vectors, aligned=False, vector=vector, divisors=divisors)


# By stride: between the rows of the shared image, and how much of one is stored at once. The pitch,
# pixels * stride + gap, exceeds what is stored at once by a power of two.
WIDE_IMAGES = {2: (128, 128), 3: (128, 256), 4: (128, 128), 5: (128, 256),
               6: (256, 512), 7: (256, 128), 8: (256, 256)}  # fmt: skip
NARROW_IMAGES = {2: (128, 128), 3: (64, 128), 4: (128, 128), 5: (64, 128),
                 6: (128, 256), 7: (64, 256), 8: (256, 256)}  # fmt: skip


# Pixels copied at once: four bytes, the least that can be copied asynchronously. 0: not so copied.
# And outputs stored whole: a sector; or half of one, which planes of half as many channels share.
INPUT_AND_OUTPUT = {"f32": ((1, 8),), "f16": ((2, 16), (0, 8)), "bf16": ((2, 16), (0, 8))}


def _single_tap_nchw() -> Iterator[Variant]:
    wide = Tile(128, 8, 32, warps=4, stages=1)
    narrow = Tile(64, 8, 64, warps=4, stages=1)
    for dtype, precision in SINGLE_TAP_MATHS:
        for tile, images in ((wide, WIDE_IMAGES), (narrow, NARROW_IMAGES)):
            for stride, (gap, columns) in images.items():
                for taps in sorted({min(stride, 3), stride}):
                    for copied, sector in INPUT_AND_OUTPUT[dtype]:
                        pairs = (("x", 4), *((p, 2) for p in ("in_w", "first_w", "tile_w")))
                        yield Variant(
                            "single_tap_nchw",
                            dtype,
                            precision,
                            "nchw",
                            replace(tile, stride=stride, taps=taps),
                            aligned=copied == 2,
                            vector=sector,
                            deep=False,
                            extra=(("GAP", gap), ("COLUMNS", columns), ("COPIED", copied)),
                            divisors=(("y", 16), *(pairs if copied == 2 else ())),
                            # Programs a multiprocessor: five, four or three.
                            registers=(128, 168) if dtype == "f32" else (96, 128, 168),
                        )


def _single_tap_nhwc() -> Iterator[Variant]:
    for dtype, precision in SINGLE_TAP_MATHS:
        plain = Variant(
            "single_tap_nhwc",
            dtype,
            precision,
            "nhwc",
            Tile(64, 64, 32, warps=4, stages=3),
            aligned=True,
            divisors=_channel_vectors(dtype, "nhwc"),
            # Programs a multiprocessor: four; or six or five.
            registers=(128,) if dtype == "f32" else (80, 96),
        )
        shallow = replace(plain, deep=False)
        yield shallow
        yield replace(shallow, tile=replace(plain.tile, into=64))
        if precision == "native":
            tile = Tile(128, 64, 32, warps=4, stages=3)
            yield replace(plain, tile=tile)


def all_variants() -> list[Variant]:
    families = (
        _pack(),
        _phase(),
        _pixel_shuffle(),
        _pixel_shuffle_shallow(),
        _single_tap_nchw(),
        _single_tap_nhwc(),
    )
    return sorted(chain(*families), key=lambda variant: variant.name)
