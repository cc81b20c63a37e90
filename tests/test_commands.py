"""Commands in messages work where the person stands."""

import sys

import pytest

import compare_results
from conftest import ROOT
from ferlab.commands import located, next_command, preparation_command

RUN = "python softmax.py --resume and: python -m pip"


@pytest.mark.parametrize(
    ("folder", "typed", "expected"),
    [
        ("", "softmax.py", RUN),
        ("", "{root}/softmax.py", RUN),
        ("tests", "../softmax.py", RUN.replace("softmax", "../softmax")),
        ("tests", "{root}/softmax.py", RUN.replace("softmax", "{root}/softmax")),
        ("tests", "/usr/bin/pytest", RUN),
    ],
)
def test_script_is_named_as_the_present_one_was_typed(folder, typed, expected, monkeypatch):
    monkeypatch.chdir(ROOT / folder)
    monkeypatch.setattr(sys, "argv", [typed.format(root=ROOT)])
    assert located(RUN) == expected.format(root=ROOT)
    assert located(located(RUN)) == located(RUN)


def test_folder_with_a_space_is_quoted(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b").symlink_to(ROOT)
    monkeypatch.setattr(sys, "argv", [f"{tmp_path}/a b/softmax.py"])
    assert located("python softmax.py -h") == f"python '{tmp_path}/a b/'softmax.py -h"


def test_messages_from_another_folder(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(ROOT / "compare_results.py")])
    assert compare_results.main([]) == 1
    assert f"make results with: python {ROOT}/baseline.py" in capsys.readouterr().err
    assert preparation_command(tmp_path).startswith(f"python {ROOT}/dataset_preparation.py")
    following = next_command("softmax", tmp_path, tmp_path, "labels")
    assert following.startswith(f"python {ROOT}/basic_nn.py --data-dir")
