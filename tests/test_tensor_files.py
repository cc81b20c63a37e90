"""Files of tensors: what is damaged or harmful is refused."""

import pickle
import resource
import zipfile
from pathlib import Path

import pytest
import torch

from conftest import ROOT
from ferlab.files import UserError
from ferlab.tensor_files import load_tensors, save_tensors


def test_a_changed_byte_is_noticed(tmp_path):
    path = tmp_path / "file.pth"
    content = {"a": torch.arange(50.0), "b": ["x", "y"], "c": {"d": 1.5}}
    save_tensors(content, path)
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole), 3):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            found = load_tensors(path, "make it anew")
        except UserError as error:
            assert "is damaged or not a file of this project; make it anew" in str(error)
            refused += 1
        else:  # a byte that stands for nothing, such as padding
            assert found["a"].equal(content["a"])
            assert (found["b"], found["c"]) == (content["b"], content["c"])
    assert refused > len(whole) / 6


def test_a_compressed_file_is_refused_without_being_read(tmp_path):
    """A gigabyte of zeros takes a megabyte."""
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"")
        with archive.open("archive/data/0", "w", force_zip64=True) as entry:
            for _ in range(64):
                entry.write(bytes(1 << 20))
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="is damaged or not a file of this project"):
        load_tensors(path, "make it anew")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start < 32 << 10, "kB"


class Harmful:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def test_a_pickle_that_runs_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"images": Harmful()}, "harmful.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Harmful()))
    for name in ("harmful.pth", "plain.pth"):
        with pytest.raises(UserError, match="is damaged or not a file of this project"):
            load_tensors(Path(name), "make it anew")
    assert not Path("executed").exists()
    torch.load("harmful.pth", weights_only=False)
    assert Path("executed").exists(), "it would have run"


def test_no_buffer_is_left_to_the_collector():
    """Where the write of one fails, Python 3.12.1 crashes, and 3.13 warns."""
    for path in ROOT.glob("ferlab/**/*.py"):
        assert ".getbuffer(" not in path.read_text(encoding="utf-8"), path
