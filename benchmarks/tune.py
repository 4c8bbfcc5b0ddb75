"""Make the record files that ship: the zoo, KernelBench, and grids of layers between them.

    python -m benchmarks.tune --out FOLDER [--seconds 200] [--parts zoo,kernelbench,volumes,grid] [--proxy "RTX 4090"]

Writes FOLDER/<gpu>.jsonl, and FOLDER/left_out_<gpu>.jsonl for the fifth of the zoo that no table is
made of. A file that is there is extended: layers that it has are skipped. A family of which a kernel
fails is left out when this runs again, which exit code 3 asks for. --proxy measures the kernels of another GPU in the same run, as the driver
compiles them for this one.
"""  # noqa: E501

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import itertools
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.zoo import LAYERS, is_left_out
from convt import _C, records
from convt._cli_tune import layer_of
from convt.records import Layer, Table
from convt.tuning.bench import GpuBench, families, header
from convt.tuning.search import ATEN, Call, Candidate, tune_layer

LAYOUTS = ("nhwc", "nchw")
# Level 1, problems 57, 64, 65, 69, 71, 74, 75, 78, 79 and 81.
KERNELBENCH = (
    "tf32 nchw 8x64x1024x1024 -> 64 k3x3",
    "tf32 nchw 64x128x65536 -> 128 k3",
    "tf32 nchw 8x64x512x512 -> 64 k3x7",
    "tf32 nchw 64x64x128x256 -> 128 k3x5",
    "tf32 nchw 8x32x512x1024 -> 32 k3x3",
    "tf32 nchw 32x32x131072 -> 64 k5 d3",
    "tf32 nchw 16x32x128x256 -> 64 k3x5 s2x3 p1x2 d2x1 g4",
    "tf32 nchw 8x32x512x1024 -> 32 k3x7 p1x3",
    "tf32 nchw 16x32x131072 -> 64 k3 s2 p1 d2",
    "tf32 nchw 16x32x64x128 -> 64 k3x3 s5x5 p1x1 d2x2",
)
# (kernel, stride, padding, output_padding) of both axes.
SHAPES = ((4, 2, 1, 0), (2, 2, 0, 0), (3, 2, 1, 1), (3, 1, 1, 0), (5, 2, 2, 1), (4, 4, 0, 0),
          (8, 4, 2, 0), (16, 8, 4, 0))  # fmt: skip
CHANNELS = ((256, 128), (64, 64), (512, 512), (128, 32), (64, 3), (1024, 256))
IMAGES = ((8, 32), (1, 128), (32, 8))  # (batch, height and width)


def zoo() -> Iterator[Call]:
    rows = [row for axes in (2, 3) for row in json.loads(LAYERS[axes].read_text())]
    for row, layout in itertools.product(rows, LAYOUTS):
        yield Call(layer_of(row, layout), row["id"])


def kernelbench() -> Iterator[Call]:
    for text in KERNELBENCH:
        layer = Layer.parse(text)
        for layout in LAYOUTS:
            if layout == "nchw" or len(layer.size) > 1:
                yield Call(layer._replace(layout=layout), text)


def grid() -> Iterator[Call]:
    """Every combination, the first values of each list first."""
    lists = (IMAGES, CHANNELS, SHAPES, LAYOUTS, ("f16", "tf32"))
    places = itertools.product(*(range(len(values)) for values in lists))
    for place in sorted(places, key=lambda place: sum(place[:3])):
        (batch, side), (into, out), shape, layout, math = (
            values[i] for values, i in zip(lists, place, strict=True)
        )
        kernel, stride, padding, output_padding = ((number, number) for number in shape)
        if shape[1] * side > 512 or into * out > 2**16 < side * side * batch:
            continue
        layer = Layer(
            math, layout, batch, into, out, (side, side), kernel, stride, padding, output_padding,
            (1, 1),
        )  # fmt: skip
        yield Call(layer, f"grid {layer}")


def volumes() -> Iterator[Call]:
    """As in the decoders of 3-D U-Nets: fewer channels, more voxels."""
    sizes = ((2, 64, 32, 64), (2, 128, 64, 32), (2, 256, 128, 16), (2, 320, 256, 8))
    shapes = ((2, 2, 0, 0), (4, 2, 1, 0), (3, 2, 1, 1), (3, 1, 1, 0))
    for shape, size, layout, math in itertools.product(shapes, sizes, LAYOUTS, ("f16", "tf32")):
        batch, into, out, side = size
        kernel, stride, padding, output_padding = ((number,) * 3 for number in shape)
        layer = Layer(
            math, layout, batch, into, out, (side,) * 3, kernel, stride, padding, output_padding,
            (1,) * 3,
        )  # fmt: skip
        yield Call(layer, f"volumes {layer}")


PARTS = {"zoo": zoo, "kernelbench": kernelbench, "volumes": volumes, "grid": grid}


class Files:
    """A table and its left-out fifth, written every few seconds and in the end."""

    def __init__(self, folder: Path, header: records.Header) -> None:
        name = records.file_name(header.device)
        self.paths = {False: folder / name, True: folder / f"left_out_{name}"}
        self.tables = {
            left_out: records.read(path) if path.exists() else Table(header)
            for left_out, path in self.paths.items()
        }

        self.written = time.monotonic()

    def layers(self) -> set[Layer]:
        return {record.layer for table in self.tables.values() for record in table.records}

    def add(self, call: Call, found: tuple[records.Record, ...]) -> None:
        left_out = is_left_out(call.name)
        self.tables[left_out] = self.tables[left_out].extended(found)
        if time.monotonic() > self.written + 5:
            self.write()

    def write(self) -> None:
        for left_out, path in self.paths.items():
            records.write(path, self.tables[left_out])
        self.written = time.monotonic()


class CarefulBench(GpuBench):
    """Leaves families out, and knows which family it timed last: that of a kernel that fails."""

    latest: tuple[str, ...] = ()

    def __init__(self, layer: Layer, without: set[str]) -> None:
        super().__init__(layer)
        self.without = without

    def candidates(self) -> list[Candidate]:
        return [c for c in super().candidates() if c.family not in self.without]

    def time(self, config: str, limit: float) -> float | None:
        CarefulBench.latest = () if config == ATEN else (families()[config.split()[0]],)
        return super().time(config, limit)


class ProxyBench(CarefulBench):
    """Kernels that are compiled for another GPU, run here; times as they would be there.

    A time is scaled by the two GPUs' ratio of max(bytes / bandwidth, flops / rate). ATen's kernels
    use the tensor cores of the GPU at hand at full rate; those of an older GPU, by `mma.sync`, at
    MMA_SYNC of it.
    """

    MMA_SYNC = 0.62  # of wgmma's rate on sm_90: 660 of 1,063 fp16 TFLOP/s

    def __init__(self, here: GpuBench, gpu: _C.Gpu, aten_us: float) -> None:
        vars(self).update(vars(here))  # its tensors
        self.gpu, self.aten_us = gpu, aten_us
        at_hand, problem = here.gpu, self.problem

        def floor(device: _C.Gpu, share: float) -> float:
            rate = share * device.rate(problem)
            return max(problem.min_bytes / device.bandwidth * 1e-3, problem.flops / rate * 1e-6)

        own = floor(gpu, 1.0)
        self.aten_scale = own / floor(at_hand, 1.0)
        self.scale = own / floor(at_hand, self.MMA_SYNC if at_hand.arch >= 90 else 1.0)

    def time(self, config: str, limit: float) -> float | None:
        if config == ATEN:
            return self.aten_us * self.aten_scale
        us = super().time(config, limit / self.scale)
        return None if us is None else us * self.scale


def compile_ptx(arch: int, processes: int = 8) -> None:
    """Lets the driver compile all PTX into its cache, which takes half a second an image."""
    names = [variant["name"] for variant in _C.variants()]
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool:
        pool.map(_compile_ptx, [(name, arch) for name in names], chunksize=1)


def _compile_ptx(image: tuple[str, int]) -> None:
    torch.cuda.synchronize()  # makes the context
    module = ctypes.c_void_p()
    try:
        ptx = _C.image(*image, "ptx")
    except KeyError:
        return
    ctypes.CDLL("libcuda.so.1").cuModuleLoadData(ctypes.byref(module), ptx)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=200.0, help="of measuring")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--without", default="", help="families to leave out, commas between")
    parser.add_argument("--proxy", help="a product like 'RTX 4090'")
    arguments = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    begin = time.monotonic()
    top = header()
    files = [Files(arguments.out, top)]
    proxy = None
    if arguments.proxy:
        proxy = _C.Gpu.preset(arguments.proxy)
        proxy = proxy.with_image(proxy.image[0], "ptx")
        os.environ["CUDA_MODULE_LOADING"] = "EAGER"  # of the processes that compile
        compile_ptx(proxy.image[0])
        name = f"NVIDIA GeForce {proxy.name}"
        files.append(Files(arguments.out, dataclasses.replace(
            top, device=name, arch=proxy.image[0], proxy=f"{top.device} running its PTX; scaled"
        )))  # fmt: skip
    calls = [call for part in arguments.parts.split(",") for call in PARTS[part]()]
    done_before = set.intersection(*(each.layers() for each in files))
    calls = [c for c in calls if c.layer not in done_before]
    failed = arguments.out / "failed.txt"
    without = set(failed.read_text().split()) if failed.exists() else set()
    without |= set(arguments.without.split(","))
    for done, call in enumerate(calls):
        left = begin + arguments.seconds - time.monotonic()
        if left <= 0:
            print(f"no time for {len(calls) - done} of {len(calls)} layers")
            break
        share = max(left / (len(calls) - done), 0.2)  # ATen's own time comes on top
        try:
            bench = CarefulBench(call.layer, without)
            result = tune_layer(call, bench, share / len(files), time.monotonic)
            files[0].add(call, result.records)
            if proxy is not None:
                other = ProxyBench(bench, proxy, result.aten_us)
                files[1].add(call, tune_layer(call, other, share / 2, time.monotonic).records)
        except RuntimeError as error:
            print(f"{call.name}: {call.layer}: {error}")
            if not isinstance(error, torch.OutOfMemoryError):  # the context may be lost: start anew
                with failed.open("a") as file:
                    print(*CarefulBench.latest, file=file)
                for each in files:
                    each.write()
                sys.exit(3)
            torch.cuda.empty_cache()
            continue
        print(
            f"{time.monotonic() - begin:6.1f} s {call.name:24} {call.layer.layout} "
            f"ATen {result.aten_us:8.1f} us, {result.after} {result.after_us:8.1f} us, "
            f"{len(result.records)} timed",
            flush=True,
        )
    for each in files:
        each.write()


if __name__ == "__main__":
    main()
