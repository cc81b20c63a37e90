"""A full disk, few file handles, little memory, odd names: one line, and nothing is lost."""

import csv
import io
import os
import resource
import shutil
import struct
import subprocess
import sys
import zlib
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from test_bad_input import files_below, main

from conftest import ROOT, assert_one_line_error, drawn_frame, make_split
from ferlab import entry
from ferlab.data.splits import load_split, save_splits
from model_runs import SMALL

ODD_NAMES = (
    "with a space",
    "Überraschung 驚き",
    "-a",
    "line\nbreak",
    "100%",
    "a'b\"c",
    "[x]*?",
    "#1",
)


@pytest.fixture(scope="module")
def results(tmp_path_factory, data_dir):
    """A folder with results of softmax regression."""
    folder = tmp_path_factory.mktemp("results")
    flags = ["--data-dir", data_dir, "--results-dir", folder, "--quiet", *SMALL["softmax"]]
    assert main("softmax", flags) == 0
    return folder


@contextmanager
def small_disk(folder: Path, kilobytes: int):
    """Mounts a disk of that size at `folder`; skips where that is not allowed."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def error_of(capsys) -> str:
    """Returns the one line of error on stderr; lines of progress aside."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def writer(name: str, out: Path, images: Path, data_dir: Path, results: Path) -> tuple[str, list]:
    """Returns a script and flags with which it writes to `out`."""
    to = ["--data-dir", data_dir, "--results-dir", out]
    weights = ["--weights", results / "softmax_model.pth"]
    live = ["--source", "sample", "--no-window", "--max-frames", "12"]
    return {
        "unpacking": ("download_dataset", ["--archive", f"{images}.zip", "--data-dir", out]),
        "preparation": ("dataset_preparation", ["--source", images, "--data-dir", out]),
        "training": ("softmax", [*to, "--quiet", *SMALL["softmax"]]),
        "evaluation": ("softmax", [*to, "--quiet", "--evaluate", *weights]),
        "export": ("export_onnx", [*to, *weights]),
        "tuning": ("tune_hyperparameters", ["softmax.py", *to, "--trials", 1, *SMALL["softmax"]]),
        "video": ("live_inference", [*live, "--output", out / "a.mp4", "--log", out / "a.csv"]),
    }[name]


WRITERS = ("unpacking", "preparation", "training", "evaluation", "export", "tuning", "video")


@pytest.mark.parametrize("kilobytes", [4, 64])
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk(name, kilobytes, images, data_dir, results, tmp_path, capfd):
    out = tmp_path / "out"
    with small_disk(out, kilobytes):
        script, flags = writer(name, out, images, data_dir, results)
        code = main(script, flags)
        error = error_of(capfd)
        assert str(out) in error
        reason = error.replace(str(out), "")  # the folder is named after this test
        assert code == 1 and ("No space left" in reason or "disk" in reason), error
        left = {path.name for path in out.rglob("*") if path.is_file()}
        assert not [n for n in left if n.endswith(".tmp")], "what is half written is removed"


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_that_is_read_only(name, images, data_dir, results, tmp_path, capfd):
    out = tmp_path / "out"
    with small_disk(out, 64):
        subprocess.run(["mount", "-o", "remount,ro", str(out)], check=True)
        script, flags = writer(name, out, images, data_dir, results)
        assert main(script, flags) == 1
        error = error_of(capfd)
        assert str(out) in error and "ead-only" in error


def as_a_person(script: str, flags: list, limits: dict, tmp_path, closed: int = 0, **environment):
    """Runs a script with limits on its resources and `closed` streams, from another folder."""

    def limit():
        for name, value in limits.items():
            resource.setrlimit(getattr(resource, name), (value, value))
        os.closerange(0, closed)

    command = [sys.executable, ROOT / f"{script}.py", *flags]
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        preexec_fn=limit,
        cwd=tmp_path,
        timeout=120,
        env={key: value for key, value in {**os.environ, **environment}.items() if value},
    )


@pytest.mark.parametrize("name", ["preparation", "training", "video"])
def test_few_handles_and_closed_streams(name, images, data_dir, results, tmp_path):
    """With `<&- >&- 2>&-` the files are the same, and none of them gets what libraries print."""
    written = []
    for closed, limits in ((0, {"RLIMIT_NOFILE": 40}), (3, {})):
        out = tmp_path / str(closed)
        script, flags = writer(name, out, images, data_dir, results)
        flags = [flag for flag in flags if flag != "--quiet"]
        done = as_a_person(script, flags, limits, tmp_path, closed, HOME="", TMPDIR="")
        assert done.returncode == 0, done.stderr
        written.append(files_below(out))
    assert not (tmp_path / "results").exists(), "everything is where it was asked for"
    assert written[0].keys() == written[1].keys()
    unequal = {file for file in written[0] if written[0][file] != written[1][file]}
    assert not any(file.endswith((".pt", ".npz", "a.csv")) for file in unequal), unequal


def test_names_that_the_terminal_cannot_show(monkeypatch):
    """Bytes that are no UTF-8, or letters that a Windows code page lacks."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    assert entry.command(lambda argv: print("Ü\udcff", flush=True))([]) == 0
    assert sys.stdout.buffer.getvalue().splitlines() == [rb"\xdc\udcff"]


@pytest.mark.parametrize("script", sorted(path.name for path in ROOT.glob("*.py")))
def test_packages_that_are_not_installed(script, tmp_path):
    """A Python without the project's packages: `-S` leaves all that pip has installed."""
    flags = ["softmax.py"] if script.startswith("tune") else []
    command = [sys.executable, "-S", ROOT / script, *flags]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert_one_line_error(done, "the Python package", "pip install -r", str(ROOT))
    assert not any(tmp_path.iterdir())


def test_a_library_that_is_not_installed():
    error = ImportError("libGL.so.1: cannot open shared object file: No such file or directory")
    assert entry.missing(error).startswith("libGL.so.1 is missing")
    assert entry.missing(ImportError("cannot import name 'a' from 'b'")) is None
    assert entry.missing(ModuleNotFoundError(name="ferlab.evaluation")) is None


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (RuntimeError("can't start new thread"), "can't start new thread; end other programs"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: ..."), "too little memory;"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried ..."), "the GPU has too little memory;"),
        (MemoryError(), "rank 1: too little memory;"),
        (RuntimeError("something else"), None),
    ],
)
def test_no_further_thread_or_memory(fault, line, capfd, monkeypatch):
    """At `ulimit -u`, or a container's limit of processes; other errors are no user's."""
    monkeypatch.setenv("RANK", "1")

    @entry.command
    def script(argv):
        raise fault

    if line is None:
        with pytest.raises(RuntimeError):
            script([])
    else:
        assert script([]) == 1
        assert line in error_of(capfd)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["training", "preparation"])
def test_little_memory(name, images, data_dir, results, tmp_path):
    """Works, or says that memory is short; torch alone maps some gigabytes."""
    script, flags = writer(name, tmp_path / "out", images, data_dir, results)
    for gigabytes in (6, 10):
        done = as_a_person(script, flags, {"RLIMIT_AS": gigabytes << 30}, tmp_path)
        if done.returncode:
            assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
            assert done.stderr.strip().splitlines()[-1].startswith("error: "), done.stderr


@pytest.mark.parametrize("odd", ODD_NAMES)
def test_odd_names(odd, images, data_dir, tmp_path, capfd, monkeypatch):
    """In the names of a dataset's files and of all folders."""
    monkeypatch.chdir(tmp_path)
    source, data, out = (Path(f"{kind} {odd}") for kind in ("source", "data", "out"))
    shutil.copytree(images, source)
    for path in list(source.rglob("*.png")):
        path.rename(path.with_name(f"{odd} {path.name}"))
    assert main("dataset_preparation", ["--source", source, "--data-dir", data]) == 0
    assert "next: python baseline.py" in capfd.readouterr().out
    flags = ["--data-dir", data, "--results-dir", out, "--quiet"]
    assert main("softmax", [*flags, *SMALL["softmax"]]) == 0
    assert main("compare_results", ["--results-dir", out]) == 0
    picture = Path(f"{odd}.png")
    picture.write_bytes(cv2.imencode(".png", drawn_frame([(320, 220, 90)])[0])[1].tobytes())
    live = ["--no-window", f"--source=./{picture}", f"--output=./{odd}.jpg", f"--log=./{odd}.csv"]
    assert main("live_inference", live) == 0
    with Path(f"{odd}.csv").open(newline="", encoding="utf-8") as file:
        assert [row["file"] for row in csv.DictReader(file)] == [str(picture)], "one face"


@pytest.mark.parametrize(
    ("script", "flag"),
    [
        ("dataset_preparation", "--source"),
        ("softmax", "--data-dir"),
        ("live_inference", "--source"),
        ("live_inference", "--log"),
        ("export_onnx", "--weights"),
    ],
)
def test_a_name_that_is_too_long(script, flag, tmp_path, capfd, monkeypatch):
    """The system's answer comes as for a folder without permission, which root may always read."""
    monkeypatch.chdir(tmp_path)
    window = ["--no-window"] if script == "live_inference" else []
    assert main(script, [*window, flag, tmp_path / ("a" * 300)]) == 1
    assert "File name too long" in error_of(capfd)


def test_links_in_a_circle(images, tmp_path, capfd):
    source = tmp_path / "source"
    shutil.copytree(images, source)
    (source / "train" / "happy" / "again").symlink_to(source, target_is_directory=True)
    (source / "train" / "angry" / "0.png").unlink()
    (source / "train" / "angry" / "0.png").symlink_to("0.png")
    assert main("dataset_preparation", ["--source", source, "--data-dir", tmp_path / "data"]) == 0
    train = load_split(tmp_path / "data", "train")
    assert train.class_counts().tolist() == [11, 12, 12, 12, 12, 12, 12]


SIZES = {"one pixel": (1, 1), "a line": (3, 20_000), "a column": (20_000, 100)}


@pytest.mark.parametrize("size", SIZES)
def test_images_of_odd_sizes(size, images, tmp_path, capfd):
    """Each is used, or is counted among those that are left out."""
    source = tmp_path / "source"
    shutil.copytree(images, source)
    picture = np.tile(np.arange(SIZES[size][1], dtype=np.uint8), (SIZES[size][0], 1))
    cv2.imwrite(str(source / "train" / "happy" / "odd.png"), picture)
    assert main("dataset_preparation", ["--source", source, "--data-dir", tmp_path / "data"]) == 0
    used = load_split(tmp_path / "data", "train").class_counts()[3].item()
    out = capfd.readouterr().out
    assert (used, "files left out: none" in out) in ((13, True), (12, False))
    live = ["--no-window", "--log", tmp_path / "a.csv"]
    code = main("live_inference", [*live, "--source", source / "train" / "happy" / "odd.png"])
    assert code == 0 or (code == 1 and "odd.png" in error_of(capfd))


def png_of_size(width: int, height: int) -> bytes:
    """Returns the beginning of a PNG of that size."""
    content = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1 << 20)))):
        content += struct.pack(">I", len(data)) + kind + data
        content += struct.pack(">I", zlib.crc32(kind + data))
    return content


def test_an_image_that_would_fill_the_memory(images, tmp_path, capfd):
    """20,000 x 20,000 pixels in a kilobyte: left out of a dataset, refused by the live program."""
    source = tmp_path / "source"
    shutil.copytree(images, source)
    path = source / "train" / "happy" / "large.png"
    path.write_bytes(png_of_size(20_000, 20_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert main("dataset_preparation", ["--source", source, "--data-dir", tmp_path / "data"]) == 0
    assert "files left out: 1 unreadable" in capfd.readouterr().out
    assert main("live_inference", ["--no-window", "--source", path]) == 1
    assert "large.png is too large: Image size (400000000 pixels)" in error_of(capfd)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500 << 10, "kB"


def test_two_datasets_are_told_apart(data_dir, tmp_path, capsys):
    """Results of other data are neither compared nor continued."""
    other = tmp_path / "other"
    save_splits(
        {name: make_split(8, seed) for seed, name in enumerate(("train", "val", "test"), 5)}, other
    )
    out = tmp_path / "out"
    for script, data in (("baseline", data_dir), ("softmax", other)):
        flags = ["--data-dir", data, "--results-dir", out, "--quiet", *SMALL.get(script, [])]
        assert main(script, flags) == 0
    assert main("compare_results", ["--results-dir", out]) == 1
    assert "are of different test images" in error_of(capsys)
    flags = ["--data-dir", data_dir, "--results-dir", out, "--resume", *SMALL["softmax"]]
    before = files_below(out)
    assert main("softmax", flags) == 1
    assert "was trained on other data; start over without --resume" in error_of(capsys)
    assert files_below(out) == before
