"""`convt replace` as its users type it."""

import json

import pytest

from convt.cli import main

MODEL = """
from torch import nn

def decoder():
    return nn.Sequential(nn.ConvTranspose2d(4, 6, 2, 2), nn.BatchNorm2d(6), Own(6, 3, 3)).eval()

class Own(nn.ConvTranspose2d):
    def forward(self, x):
        return super().forward(x)

def nothing():
    return 1

layer = nn.ConvTranspose1d(4, 2, 3)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "some_model.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)


def test_table(capsys):
    assert main(["replace", "some_model:decoder", "--input", "2,4,8,8", "--fuse"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "name"
    assert "replaced: BatchNorm folded" in lines[2]
    assert lines[2].endswith("at 2x4x8x8")
    assert "kept: Own has a forward of its own" in lines[3]
    assert lines[-1] == "1 of 2 are convt's"


def test_json_and_a_model_that_is_no_function(capsys):
    assert main(["replace", "some_model:layer", "--json"]) == 0
    (layer,) = json.loads(capsys.readouterr().out)["layers"]
    assert layer["name"] == "(the model)"
    assert layer["replaced"] == "replaced"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["some_model"], "expected MODULE:FUNCTION, got 'some_model'"),
        (["no_such_model:f"], "cannot find no_such_model:f: No module named 'no_such_model'"),
        (["some_model:f"], "cannot find some_model:f"),
        (
            ["some_model:nothing"],
            "expected some_model:nothing to return a torch.nn.Module, got int",
        ),
        (
            ["some_model:decoder", "--input", "2,x"],
            "expected --input to be sizes N,C,..., got '2,x'",
        ),
        (["some_model:decoder", "--input", "2,5,8,8"], "does not run on --input 2,5,8,8"),
    ],
)
def test_user_errors(arguments, message, capsys):
    assert main(["replace", *arguments]) == 2
    assert message in capsys.readouterr().err
