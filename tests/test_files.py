"""Files are written whole or not at all."""

import json
import math
import subprocess
import sys

import pytest

from conftest import ROOT
from ferlab import files
from ferlab.files import (
    UserError,
    atomic_path,
    read_json,
    replace_together,
    require_writable,
    write_json,
    write_text,
)


def test_write_replaces_and_leaves_nothing_beside(tmp_path):
    path = tmp_path / "new" / "file.txt"
    write_text(path, "one")
    write_text(path, "two")
    assert path.read_text() == "two"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_failure_keeps_the_older_file(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(KeyError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_full_disk_is_one_line(tmp_path):
    path = tmp_path / "file.txt"
    with pytest.raises(UserError, match="cannot write .*file.txt: No space"), atomic_path(path):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_text(tmp_path / "file" / "below.txt", "")
    with pytest.raises(UserError, match="cannot write to folder"):
        require_writable(tmp_path / "file" / "results")


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    path = tmp_path / "file.txt"
    code = "import os; from ferlab.files import atomic_path\nwith atomic_path({!r}) as t: {}"
    kill = code.format(str(path), "t.write_text('half'); os.kill(os.getpid(), 9)")
    subprocess.run([sys.executable, "-c", kill], cwd=ROOT, timeout=60)
    assert len(list(tmp_path.iterdir())) == 1
    with atomic_path(path) as temporary:
        assert list(tmp_path.iterdir()) == [temporary], "the killed one's is gone"
        other = code.format(str(path), "t.write_text('other')")
        subprocess.run([sys.executable, "-c", other], cwd=ROOT, timeout=60, check=True)
        temporary.write_text("ours")
    assert path.read_text() == "ours"
    assert list(tmp_path.iterdir()) == [path]


def test_files_of_a_set_are_replaced_together(tmp_path, monkeypatch):
    """The process ends after any number of operations: never are old and new side by side."""
    names = ["first", "second", "last"]
    for stop in range(7):
        for name in names:
            (tmp_path / name).write_text("old")
            (tmp_path / f"new {name}").write_text("new")
        news = [(tmp_path / f"new {name}", tmp_path / name) for name in names]
        left = iter([None] * stop)

        def next_step(original, left=left):
            def call(*args, **options):
                next(left)  # StopIteration stands for the end of the process
                return original(*args, **options)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(files.Path, "unlink", next_step(files.Path.unlink))
            patch.setattr(files.os, "replace", next_step(files.os.replace))
            if stop < 6:
                with pytest.raises(StopIteration):
                    replace_together(news)
            else:
                replace_together(news)
        there = {(tmp_path / name).read_text() for name in names if (tmp_path / name).exists()}
        assert there in ({"old"}, {"new"}, set())
        if there == {"new"} and stop < 6:
            assert not (tmp_path / "last").exists()


def test_file_taken_for_a_leftover_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    locked = []

    def removed_once(handle, operation):
        if not locked:
            next(tmp_path.iterdir()).unlink()
        locked.append(handle)

    monkeypatch.setattr(files.fcntl, "flock", removed_once)
    write_text(tmp_path / "file.txt", "whole")
    assert len(locked) == 2 and (tmp_path / "file.txt").read_text() == "whole"
    assert len(list(tmp_path.iterdir())) == 1


def test_json_that_has_changed_is_refused(tmp_path):
    path, content = tmp_path / "a.json", {"n": 7, "deep": [{"x": 0.1, "5": None}, math.pi, "é"]}
    write_json(path, content)
    assert read_json(path) == content
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        path.write_bytes(damaged)
        try:
            assert read_json(path).items() >= content.items()  # white space, or the checksum's name
        except ValueError:
            continue
    for same in (
        whole.replace(b"  ", b"\t"),
        whole.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + whole,
    ):
        path.write_bytes(same)
        assert read_json(path) == content, "as an editor writes it"
    path.write_text(json.dumps(content))
    assert read_json(path) == content, "of no checksum"
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="recursion"):
        read_json(path)
    path.write_text("[1]")
    with pytest.raises(ValueError, match="list, not a dict"):
        read_json(path)
