"""Files of measured times: what is written is read again; other files are refused by name."""

import dataclasses
import json
import random

import pytest

from convt.records import (
    Header,
    Layer,
    Record,
    RecordError,
    Table,
    dumps,
    file_name,
    loads,
    read,
    write,
)

HEADER = Header(
    device="NVIDIA H200", arch=90, clocks="1980 MHz", driver="580.1", torch="2.11", cudnn="91900",
    date="2026-11-27", convt="0.1.0",
)  # fmt: skip
PLAIN = Layer("f16", "nhwc", 16, 256, 128, (32, 24), (4, 4), (2, 2), (1, 1), (0, 0), (1, 1))
ODD = Layer("tf32", "nchw", 2, 6, 9, (5,), (3,), (4,), (0,), (1,), (2,), groups=3, bias=True)
DEEP = Layer("fp32", "nchw", 1, 8, 8, (2, 3, 4), (2, 2, 2), (2, 2, 2), *[(0, 0, 0)] * 2, (1, 1, 1))


def test_a_layer_prints_itself_and_parses_back():
    assert str(PLAIN) == "f16 nhwc 16x256x32x24 -> 128 k4x4 s2x2 p1x1"
    assert str(ODD) == "tf32 nchw 2x6x5 -> 9 k3 s4 o1 d2 g3 bias"
    for layer in (PLAIN, ODD, DEEP):
        assert Layer.parse(str(layer)) == layer


@pytest.mark.parametrize(
    "text",
    ["", "f16 nhwc 16x256 -> 128 k4x4", "f64 nhwc 1x1x1x1 -> 1 k1x1", "f16 nhwc 1x1x1x1 -> 1 k1"],
    ids=["empty", "no axis", "unknown math", "one number for two axes"],
)
def test_a_text_of_no_layer_is_refused(text):
    with pytest.raises(ValueError, match="expected a"):
        Layer.parse(text)


def table():
    records = [
        Record(layer, config, us, 50.0)
        for layer in (PLAIN, ODD, DEEP)
        for config, us in (("b", 40.25), ("a", 60.0))
    ]
    random.Random(0).shuffle(records)
    return Table(HEADER, tuple(records))


def test_a_file_is_sorted_and_read_again(tmp_path):
    path = tmp_path / "new folder" / file_name(HEADER.device)
    assert path.name == "nvidia_h200.jsonl"
    write(path, table())
    assert read(path) == table().extended(())
    lines = path.read_text().splitlines()
    assert json.loads(lines[0]) == {"format": 1, **dataclasses.asdict(HEADER)}
    assert len(lines) == 7
    assert [json.loads(line)["config"] for line in lines[1:]] == ["a", "b"] * 3
    assert dumps(read(path)) == path.read_text()
    assert list(path.parent.iterdir()) == [path]


def test_a_later_record_replaces_the_one_of_the_same_layer_and_config():
    later = Record(PLAIN, "b", 30.0, 45.0)
    new = Record(PLAIN, "c", 20.0, 45.0)
    merged = table().extended([later, new])
    assert len(merged.records) == 7
    of_plain = {r.config: r.us for r in merged.records if r.layer == PLAIN}
    assert of_plain == {"a": 60.0, "b": 30.0, "c": 20.0}


def changed(**changes):
    """The text of a file whose header has these values instead."""
    header, *rest = dumps(table()).splitlines()
    values = {**json.loads(header), **changes}
    values = {name: value for name, value in values.items() if value is not None}
    return "\n".join([json.dumps(values), *rest])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"^its name:1: expected a JSON object, got ''$"),
        ("[1]", r"^its name:1: expected a JSON object, got '\[1\]'$"),
        (changed(format=2, convt="0.9"),
         r"^its name: expected records of format 1, got format 2, written by convt 0.9$"),
        (changed(format=None), r"expected records of format 1, got format None, written by"),
        (changed(arch=None), r"^its name:1: the header missing 1 required positional argument"),
        (changed(color="red"), r"^its name:1: the header got an unexpected key 'color'$"),
        (changed() + "\n{", r"^its name:8: expected a JSON object, got '\{'$"),
        (changed() + '\n{"problem": 3}', r"^its name:8: "),
        (changed() + f'\n{{"problem": "{PLAIN}", "config": "c", "us": 1}}',
         r"^its name:8: expected a value for 'aten_us'$"),
        (changed() + f'\n{{"problem": "{PLAIN}", "config": "c", "us": 0, "aten_us": 1}}',
         r"^its name:8: expected positive microseconds, got \{"),
    ],
)  # fmt: skip
def test_another_file_is_refused_by_name_and_line(text, message):
    with pytest.raises(RecordError, match=message):
        loads(text, "its name")


def test_records_of_another_convt_are_refused_where_the_version_is_asked_for(tmp_path):
    path = tmp_path / "mine.jsonl"
    write(path, table())
    assert read(path, "0.1.9").records
    message = (
        rf"^{path}: expected records measured with convt 0\.2\.0, got convt 0\.1\.0: run convt"
    )
    with pytest.raises(RecordError, match=message):
        read(path, "0.2.0")
