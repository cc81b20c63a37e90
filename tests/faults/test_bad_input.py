"""Each kind of file that a script reads, damaged in each way: one line, exit 1, nothing is lost."""

import importlib
import json
import math
import os
import shutil
import socket
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from conftest import drawn_frame
from ferlab.files import read_json
from ferlab.tensor_files import load_tensors, save_tensors
from model_runs import SMALL, run


def flipped(content: bytes, fraction: float) -> bytes:
    place = int(fraction * (len(content) - 1))
    return content[:place] + bytes([content[place] ^ 64]) + content[place + 1 :]


DAMAGES = {
    "nothing": lambda content: content,
    "empty": lambda content: b"",
    "one byte": lambda content: content[:1],
    "a quarter": lambda content: content[: len(content) // 4],
    "all but a byte": lambda content: content[:-1],
    "zeros": lambda content: bytes(len(content)),
    "text": lambda content: b"not what you think\n" * 20,
    "a web page": lambda content: b"<!DOCTYPE html><html><body>404</body></html>\n",
    "a picture": lambda content: cv2.imencode(".png", np.zeros((9, 9), np.uint8))[1].tobytes(),
    "a bit at 0.3": lambda content: flipped(content, 0.3),
    "a bit at 0.6": lambda content: flipped(content, 0.6),
    "twice": lambda content: content + content,
    "JSON": lambda content: b'{"images": [1, 2], "run": null}',
}
FORMATS = ("a folder", "a link to itself", "a pipe")  # in place of the file
FAST = ("nothing", "a quarter", "text", "a bit at 0.6", "a pipe")  # the others with SLOW=1

# The script, its flags, and the file that is damaged; {in} is a copy of the inputs, {out} empty.
DATA, TO = ("--data-dir", "{in}/data"), ("--results-dir", "{out}")
LIVE = ("--no-window", "--max-frames", "2", "--log", "{out}/faces.csv")
READERS = {
    "train split": ("softmax", [*DATA, *TO, *SMALL["softmax"]], "data/train_data.pt"),
    "val split": ("baseline", [*DATA, *TO, "--targets", "votes"], "data/val_data.pt"),
    "test split": (
        "softmax",
        [*DATA, *TO, "--evaluate", "--weights", "{in}/results/softmax_model.pth"],
        "data/test_data.pt",
    ),
    "weights": (
        "advanced_network",
        [*DATA, *TO, "--evaluate", "--weights", "{in}/results/advanced_model.pth"],
        "results/advanced_model.pth",
    ),
    "weights, explained": (
        "explain_models",
        [*DATA, "--results-dir", "{in}/results"],
        "results/softmax_model.pth",
    ),
    "weights, exported": (
        "export_onnx",
        [*DATA, *TO, "--weights", "{in}/results/softmax_model.pth"],
        "results/softmax_model.pth",
    ),
    "weights, live": (
        "live_inference",
        [*LIVE, "--source", "sample", "--weights", "{in}/results/advanced_model.pth"],
        "results/advanced_model.pth",
    ),
    "checkpoint": (
        "softmax",
        [*DATA, "--results-dir", "{in}/results", "--resume", *SMALL["softmax"]],
        "results/softmax_checkpoint.pth",
    ),
    "metrics": (
        "compare_results",
        ["--results-dir", "{in}/results"],
        "results/softmax_metrics.json",
    ),
    "ONNX": (
        "live_inference",
        [*LIVE, "--source", "sample", "--weights", "{in}/softmax_model.onnx"],
        "softmax_model.onnx",
    ),
    "zip": (
        "download_dataset",
        ["--archive", "{in}/images.zip", "--data-dir", "{out}"],
        "images.zip",
    ),
    "votes": (
        "dataset_preparation",
        ["--source", "{in}/rows", "--votes", "{in}/votes.csv", "--data-dir", "{out}"],
        "votes.csv",
    ),
    "votes, copied": (
        "download_dataset",
        ["--archive", "{in}/images.zip", "--votes", "{in}/votes.csv", "--data-dir", "{out}"],
        "votes.csv",
    ),
    "fer2013.csv": (
        "dataset_preparation",
        ["--source", "{in}/fer2013.csv", "--data-dir", "{out}", "--no-votes"],
        "fer2013.csv",
    ),
    "labels.csv": (
        "dataset_preparation",
        ["--source", "{in}/labels.csv", "--data-dir", "{out}"],
        "labels.csv",
    ),
    "image, live": ("live_inference", [*LIVE, "--source", "{in}/face.png"], "face.png"),
    "video": ("live_inference", [*LIVE, "--source", "{in}/clip.avi"], "clip.avi"),
    "tuning": (
        "tune_hyperparameters",
        [
            "softmax.py",
            *DATA,
            *TO,
            "--storage",
            "{in}/study.db",
            "--trials",
            "1",
            *SMALL["softmax"],
        ],
        "study.db",
    ),
}
# What may succeed: a format that tolerates the damage, or content that is still what it should be.
TOLERANT = {"video", "image, live", "fer2013.csv", "labels.csv", "votes", "votes, copied", "zip"}
TOLERATED = {
    ("tuning", "empty"),  # SQLite begins anew
    ("tuning", "one byte"),
    ("tuning", "all but a byte"),  # a byte that it does not use
    ("tuning", "a bit at 0.3"),
    ("tuning", "a bit at 0.6"),
    ("tuning", "twice"),
    ("metrics", "all but a byte"),  # its last line break
    ("metrics", "a bit at 0.6"),  # in a number
    ("metrics", "a bit at 0.3"),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, votes_dir, votes_table, images):
    """A folder with one whole file of each kind."""
    folder = tmp_path_factory.mktemp("inputs")
    shutil.copytree(votes_dir, folder / "data")
    for name in ("baseline", "softmax", "advanced"):
        assert run(name, "--data-dir", folder / "data", "--results-dir", folder / "results") == 0
    export = ["--weights", folder / "results" / "softmax_model.pth", "--results-dir", folder]
    assert main("export_onnx", [*export, "--data-dir", folder / "data"]) == 0
    shutil.copytree(images, folder / "images")
    shutil.copy(images.with_suffix(".zip"), folder)
    shutil.copy(votes_table, folder / "votes.csv")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(70):
        pixels = rng.integers(0, 256, 48 * 48)
        usage = "Training" if number < 49 else "PublicTest" if number < 59 else "PrivateTest"
        rows.append(f"{number % 7},{' '.join(map(str, pixels))},{usage}")
    (folder / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *rows, ""]))
    lines = ["path,label"]
    for path in sorted((folder / "images" / "train").rglob("*.png")):
        lines.append(f"{path.relative_to(folder)},{path.parent.name}")
    (folder / "labels.csv").write_text("\n".join([*lines, ""]))
    order = ("anger", "disgust", "fear", "happy", "neutral", "sad", "surprise")  # as votes_table
    for number in range(70):
        split = "train" if number < 42 else "validation"
        rowed = folder / "rows" / split / order[number % 7]
        rowed.mkdir(parents=True, exist_ok=True)
        picture = rng.integers(0, 256, (48, 48), np.uint8)
        cv2.imwrite(str(rowed / f"{number}.png"), picture)
    tuned = ["softmax.py", "--data-dir", folder / "data", "--results-dir", folder / "tuned"]
    study = ["--storage", folder / "study.db", "--trials", "1", *SMALL["softmax"]]
    assert main("tune_hyperparameters", [*tuned, *study]) == 0
    frame = drawn_frame([(320, 220, 90)])[0]
    cv2.imwrite(str(folder / "face.png"), frame)
    video = cv2.VideoWriter(
        str(folder / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (640, 480)
    )
    for _ in range(4):
        video.write(frame)
    video.release()
    return folder


def same(content, other) -> bool:
    if isinstance(content, dict):
        return content.keys() == other.keys() and all(same(content[k], other[k]) for k in content)
    if isinstance(content, list | tuple):
        return len(content) == len(other) and all(map(same, content, other))
    return torch.equal(content, other) if isinstance(content, torch.Tensor) else content == other


def main(script: str, argv: list) -> int:
    try:
        return importlib.import_module(script).main([str(arg) for arg in argv])
    except SystemExit as end:
        return end.code


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def linked_copy(source: Path, target: Path) -> None:
    """Copies a folder; the files are shared, so that it takes no time."""
    shutil.copytree(source, target, copy_function=os.link)


def no_network(*args):
    raise AssertionError("a script wants the network")


def check(reader, damage, inputs, tmp_path, capsys, monkeypatch):
    """Runs a script on its damaged input and checks what a person sees."""
    script, argv, name = READERS[reader]
    folder, out = tmp_path / "in", tmp_path / "out"
    linked_copy(inputs, folder)
    out.mkdir()
    monkeypatch.chdir(tmp_path)
    path = folder / name
    damage(path)
    monkeypatch.setattr(socket.socket, "connect", no_network)
    if script == "explain_models":  # of the damaged file alone: the CNN takes most of the time
        monkeypatch.setattr("ferlab.stage.REFERENCE_DIR", tmp_path / "none")
        for other in set(path.parent.glob("*_model.pth")) - {path}:
            other.unlink()
    before = files_below(folder)
    flags = [arg.replace("{in}", str(folder)).replace("{out}", str(out)) for arg in argv]
    code = main(script, flags)
    captured = capsys.readouterr()
    if code == 0:
        return captured
    assert code == 1, captured.err
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    others = [line for line in captured.err.splitlines() if "it/s]" not in line and "|" not in line]
    assert len(errors) == 1 and others[-1] == errors[0], captured.err
    assert path.name in errors[0] or path.stem in errors[0], "the file is named"
    assert files_below(folder) == before, "nothing is replaced"
    assert not files_below(out) or set(files_below(out)) <= {"faces.csv"}, "nothing half done"
    return None


def some(names, fast=FAST):
    """Returns names as parameters of tests; those not in `fast` are of slow ones."""
    return [
        pytest.param(n, marks=() if n in fast else pytest.mark.slow, id=str(n)[:20]) for n in names
    ]


@pytest.mark.parametrize("damage", some(DAMAGES))
@pytest.mark.parametrize("reader", READERS)
def test_damaged_content(reader, damage, inputs, tmp_path, capsys, monkeypatch):
    def replace(path):
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(DAMAGES[damage](content))

    done = check(reader, replace, inputs, tmp_path, capsys, monkeypatch)
    if damage == "nothing":
        assert done is not None
    elif done is not None and READERS[reader][2].endswith((".pt", ".pth")):
        name = READERS[reader][2]  # a byte that stands for nothing, such as padding
        assert same(load_tensors(tmp_path / "in" / name, ""), load_tensors(inputs / name, ""))
    else:
        assert done is None or reader in TOLERANT or (reader, damage) in TOLERATED


@pytest.mark.parametrize("form", some(FORMATS))
@pytest.mark.parametrize("reader", READERS)
def test_something_else_in_place_of_a_file(reader, form, inputs, tmp_path, capsys, monkeypatch):
    def replace(path):
        path.unlink()
        if form == "a folder":
            path.mkdir()
        elif form == "a link to itself":
            path.symlink_to(path.name)
        else:
            os.mkfifo(path)

    assert check(reader, replace, inputs, tmp_path, capsys, monkeypatch) is None


# -- weights files and metrics that are whole, with other content -----------------------------


def set_key(*keys):
    def change(content, value):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


def spoil_weights(content, value):
    name = next(iter(content["state_dict"]))
    content["state_dict"][name] = torch.full_like(content["state_dict"][name], value)


WEIGHT_CHANGES = {
    "weights that are not finite": (spoil_weights, [math.nan, math.inf]),
    "state": (set_key("state_dict"), [{}, None, [1], {"a": torch.ones(1)}, {"a": 1}, "x"]),
    "classes": (
        set_key("class_names"),
        [[], ["a"], None, "angry", [1, 2], ["happy"] * 7, list("abcdefgh"), {"a": 1}],
    ),
    "temperature": (
        set_key("temperature"),
        [0, -1.0, math.nan, math.inf, "1", None, [1.0], torch.ones(2)],
    ),
    "configuration": (
        set_key("config"),
        [None, {}, {"classes": "7"}, {"classes": -1}, {"classes": 2}, [7], {"unknown": 1}],
    ),
    "run": (set_key("run"), [None, {}, [], "x", {"title": None}]),
    "model": (set_key("model"), [None, "", "nothing", 3, ["softmax"], "../softmax"]),
    "normalisation": (set_key("normalisation"), [None, {}, {"mean": "x", "std": 0}]),
    "size": (set_key("image_size"), [None, 0, 64, "48", [48]]),
}
WEIGHT_CASES = [
    (kind, n) for kind, (_, values) in WEIGHT_CHANGES.items() for n in range(len(values))
]


@pytest.mark.parametrize(
    "reader", some(["weights", "weights, live", "weights, exported"], ["weights"])
)
@pytest.mark.parametrize(("kind", "number"), WEIGHT_CASES)
def test_weights_of_other_content(reader, kind, number, inputs, tmp_path, capsys, monkeypatch):
    if kind == "run" and reader != "weights" and isinstance(WEIGHT_CHANGES[kind][1][number], dict):
        pytest.skip("is not used")
    change, values = WEIGHT_CHANGES[kind]

    def replace(path):
        content = load_tensors(path, "")
        change(content, values[number])
        path.unlink()
        save_tensors(content, path)

    assert check(reader, replace, inputs, tmp_path, capsys, monkeypatch) is None


def leaves(content, path=()):
    """Yields the path of each value of a JSON file, of long lists the first alone."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield (*path, key)
            yield from leaves(value, (*path, key))
    elif isinstance(content, list) and content:
        yield (*path, 0)
        yield from leaves(content[0], (*path, 0))


VALUES = [None, "x", math.nan, -1, 10**400, [], {}, True]


@pytest.mark.parametrize("value", some(VALUES, VALUES[:3]))
def test_metrics_of_other_content(value, inputs, tmp_path, capsys, monkeypatch):
    """Whatever stands in place of any value: a comparison, or one line that names the file."""
    folder = tmp_path / "results"
    linked_copy(inputs / "results", folder)
    path = folder / "softmax_metrics.json"
    original = json.dumps(read_json(path))  # without its checksum
    path.unlink()
    (folder / "baseline_predictions.npz").unlink()  # no paired tests: they take most of the time
    monkeypatch.setattr("compare_results.plot_comparison", lambda *args: None)
    paths = list(leaves(json.loads(original)))
    assert len(paths) > 100
    for keys in paths:
        content = json.loads(original)
        set_key(*keys)(content, value)
        path.write_text(json.dumps(content))
        code = main("compare_results", ["--results-dir", folder])
        error = capsys.readouterr().err
        if code:
            assert code == 1 and error.startswith("error: ") and error.count("\n") == 1, keys
            assert path.name in error, keys
