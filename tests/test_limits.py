"""What the package may weigh and how long it may take to build; every limit is here."""

import os
import subprocess
import sys
import time
import zlib
from importlib import metadata
from pathlib import Path

import pytest

from convt import _C
from tests.planning import variants

ROOT = Path(__file__).parent.parent

IMAGES = 200  # cubins of an architecture: cut what never wins in aot/tuned
WHEEL_BYTES = 10e6  # of a wheel for two architectures, and half of it for each further one
BUILD_MINUTES = 15  # for two architectures on two cores, with nothing compiled before


def wheel_limit(architectures):
    return WHEEL_BYTES * max(architectures, 2) / 2


@pytest.mark.parametrize("arch", _C.architectures("cubin"))
def test_images_of_an_architecture(arch):
    images = [image for variant in variants().values() for image in variant["images"]]
    assert sum((i["arch"], i["kind"]) == (arch, "cubin") for i in images) <= IMAGES


def test_size_of_the_wheel():
    """Of the installed files, deflated one by one as in a wheel."""
    files = [file.locate() for file in metadata.files("convt") if "__pycache__" not in file.parts]
    size = sum(len(zlib.compress(Path(file).read_bytes())) for file in files)
    assert size <= wheel_limit(len(_C.architectures("cubin")))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be chosen")
def test_a_full_build_in_time(tmp_path):
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:2]))
    command = ["taskset", "--cpu-list", cores, sys.executable, "-m", "pip", "wheel", str(ROOT),
               "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path),
               "--config-settings", f"build-dir={tmp_path}/build"]  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {
        "CONVT_CUDA_ARCHS": "89,90",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    begin = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    minutes = (time.monotonic() - begin) / 60
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB in {minutes:.1f} minutes")
    assert wheel.stat().st_size <= wheel_limit(2)
    assert minutes <= BUILD_MINUTES
