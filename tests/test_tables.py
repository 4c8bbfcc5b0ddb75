"""Which tables of measured times hold for a GPU: compiled in, a user's own, proxies."""

import dataclasses
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from aot import tuned
from convt import _C, load_tuned, records, tables
from convt.records import Header, Layer, Record, Table

HEADER = Header(
    device="NVIDIA L4", arch=89, clocks="", driver="", torch="", cudnn="", date="",
    convt=version("convt"),
)  # fmt: skip
GPU = _C.Gpu.preset("L4")
LAYER = Layer.parse("f16 nhwc 8x256x32x32 -> 128 k4x4 s2x2 p1x1")
PROBLEM = tables.problem_of(LAYER)
FIRST, SECOND = [c for c, _ in _C.candidates(PROBLEM, GPU) if c != "aten"][:2]
COMPILED_IN = sorted((Path(__file__).parent.parent / "aot/tuned").glob("*.jsonl"))

# Each test that adds a table does so in a process of its own: there is no way to take one back.
SCRIPT = f"""
import sys
from convt import _C, load_tuned, tables
gpu = _C.Gpu.preset(sys.argv[1])
problem = tables.problem_of(tables.Layer.parse({str(LAYER)!r}))
before = _C.plan(problem, gpu).config
for path in sys.argv[2:]:
    load_tuned(path)
print(before, _C.plan(problem, gpu).config)
print(*(table["source"] or table["device"] for table in _C.tables_for(gpu)), sep="|")
"""


def write(path, config, us, **changes):
    header = dataclasses.replace(HEADER, **changes)
    records.write(path, Table(header, (Record(LAYER, config, us, 40.0),)))
    return str(path)


def run(gpu, *paths, **environment):
    """(config before, config after, tables in use) of a process that loads these files."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, gpu, *paths],
        capture_output=True, text=True, check=False, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    return *first.split(), second.split("|")


def test_a_users_table_takes_effect_at_once_and_the_latest_comes_first(tmp_path):
    fast = write(tmp_path / "fast.jsonl", FIRST, 10.0)
    slow = write(tmp_path / "slow.jsonl", FIRST, 90.0)
    other = write(tmp_path / "other.jsonl", SECOND, 5.0)
    assert run("L4", fast)[1:] == (FIRST, [fast])
    assert run("L4", fast, slow)[1:] == ("aten", [slow, fast])
    assert run("L4", slow, other)[1:] == (SECOND, [other, slow])


def test_the_table_of_another_product_holds_where_a_product_has_none(tmp_path):
    table = write(tmp_path / "l4.jsonl", FIRST, 10.0)
    own = write(tmp_path / "l40s.jsonl", SECOND, 10.0, device="NVIDIA L40S")
    assert run("L40S", table)[1] == FIRST
    assert run("L40S", table, own)[1:] == (SECOND, [own])
    assert table not in run("A100", table)[2]


def test_a_proxy_gives_way_to_the_real_device(tmp_path):
    proxy = write(tmp_path / "proxy.jsonl", FIRST, 10.0, proxy="NVIDIA H200")
    real = write(tmp_path / "real.jsonl", SECOND, 10.0)
    assert run("L4", proxy)[1:] == (FIRST, [proxy])
    assert run("L4", real, proxy)[1:] == (SECOND, [real])


def test_a_folder_and_the_environment_name_tables_too(tmp_path):
    table = write(tmp_path / "nvidia_l4.jsonl", FIRST, 10.0)
    assert run("L4", str(tmp_path))[1:] == (FIRST, [table])
    assert run("L4", CONVT_TUNED=table)[::2] == (FIRST, [table])
    assert run("L4", CONVT_TUNED=str(tmp_path))[::2] == (FIRST, [table])


def test_a_bad_environment_is_a_warning_that_names_the_file(tmp_path):
    table = write(tmp_path / "old.jsonl", FIRST, 10.0, convt="0.0.1")
    done = subprocess.run(
        [sys.executable, "-c", "import convt"],
        capture_output=True, text=True, check=True, env={**os.environ, "CONVT_TUNED": table},
    )  # fmt: skip
    assert f"RuntimeWarning: CONVT_TUNED={table} is not used: {table}: expected" in done.stderr
    assert "got convt 0.0.1" in done.stderr


def test_load_tuned_refuses_what_it_cannot_use(tmp_path):
    with pytest.raises(records.RecordError, match=r"expected a folder with \.jsonl files"):
        load_tuned(tmp_path)
    with pytest.raises(OSError, match=r"none\.jsonl"):
        load_tuned(tmp_path / "none.jsonl")
    write(tmp_path / "a.jsonl", FIRST, 10.0)
    write(tmp_path / "b.jsonl", FIRST, 10.0, convt="0.0.1")
    before = _C.tables_for(GPU)
    with pytest.raises(records.RecordError, match=r"b\.jsonl: expected records measured with"):
        load_tuned(tmp_path)
    assert _C.tables_for(GPU) == before


def test_files_that_ship_are_written_as_they_would_be_again():
    assert COMPILED_IN
    for path in COMPILED_IN:
        table = records.read(path)
        assert records.dumps(table) == path.read_text(), path
        assert path.name == records.file_name(table.header.device)


@pytest.mark.parametrize("path", COMPILED_IN, ids=lambda path: path.stem)
def test_files_that_ship_are_compiled_in_and_decide(path):
    table = records.read(path)
    arch = table.header.arch
    gpu = _C.Gpu.preset(table.header.device).with_image(arch)
    [found] = [t for t in _C.tables_for(gpu) if not t["source"]]
    assert found["records"] == len(table.records)
    assert (found["device"], found["proxy"]) == (table.header.device, table.header.proxy)
    record = min(table.records, key=lambda record: record.us / record.aten_us)
    problem = tables.problem_of(record.layer)
    if arch in _C.architectures("cubin"):
        assert _C.plan(problem, gpu).config == record.config
    known = {variant["name"] for variant in _C.variants()}
    assert {record.config.split()[0] for record in table.records} <= known


def test_a_table_becomes_cpp():
    deep = Layer.parse("bf16 nchw 1x8x2x3x4 -> 6 k1x2x3 s2x2x2 g2 bias")
    table = Table(HEADER, (Record(deep, "halo_bf16 split=2", 1.5, 3.25),))
    text = tuned.generate([table])
    assert (
        "{Math::bf16, Layout::nchw, 1, 8, 6, 2, true, "
        "{{2, 1, 2, 0, 0, 1}, {3, 2, 2, 0, 0, 1}, {4, 3, 2, 0, 0, 1}}, "
        '"halo_bf16 split=2", 1.5F, 3.25F},'
    ) in text
    assert '{"NVIDIA L4", 89, "", records_0},' in text
    assert "kCompiledTables{}" in tuned.generate([])
