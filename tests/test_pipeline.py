"""One command of each script, in the README's order, on a tiny dataset: each finds the files of
those before it in its default folders.
"""

import importlib
import shlex

import cv2
import numpy as np
import pytest

import download_dataset
from conftest import ROOT, write_pictures
from ferlab.data.complete import write_record

STAGES = """
download_dataset.py
dataset_preparation.py --no-votes
baseline.py
softmax.py --epochs 2
basic_nn.py --epochs 2
advanced_network.py --preset quick --epochs 2 --widths 8 16
compare_results.py
transfer_learning.py --from-scratch --size 48 --epochs 1
tune_hyperparameters.py softmax.py --trials 2 --epochs 1
export_onnx.py
live_inference.py --source sample --no-window --max-frames 20 --output live.mp4 --log live.csv
"""
BENCHMARKS = """
benchmarks/crop.py
benchmarks/endurance.py file --frames 60
benchmarks/export.py --seconds 0.1
benchmarks/faces.py --truth truth.csv --media media
benchmarks/live.py --sizes 160x120 --latency-seconds 1
benchmarks/memory_mapping.py --images 5000
benchmarks/near_duplicates.py
benchmarks/preparation.py --rounds 1
benchmarks/preparation_memory.py --images 140
benchmarks/scaling.py --script softmax.py --processes 2 --images 140 --epochs 1
benchmarks/serve.py --visitors 1 --seconds 1
benchmarks/time_to_accuracy.py --epochs 1 --widths 8 16
"""
ELSEWHERE = {  # run by tests of their own, or imported by another benchmark
    "explain_models.py",
    "benchmarks/plain_loop.py",
    "benchmarks/ablation.py",
    "benchmarks/experiments.py",
    "benchmarks/learning_curve.py",
    "benchmarks/tables.py",
    "benchmarks/webcam.py",
}


def run_in_order(commands, capsys):
    """Runs command lines in this process, each with exit code 0."""
    for line in commands.split("\n"):
        if not line:
            continue
        script, *words = shlex.split(line)
        module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
        code = module.main(words)
        captured = capsys.readouterr()
        assert code == 0, f"{line}\n{captured.out}\n{captured.err}"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with a tiny dataset where the download would put it."""
    folder = tmp_path_factory.mktemp("workplace")
    dataset = folder / "data" / download_dataset.NAME
    write_pictures(dataset / "images" / "train", per_class=12, seed=0)
    write_pictures(dataset / "images" / "validation", per_class=8, seed=1)
    write_record(dataset)
    (folder / "media").mkdir()
    cv2.imwrite(str(folder / "media" / "face.png"), np.zeros((120, 160, 3), np.uint8))
    (folder / "truth.csv").write_text("file,first,last,x,y,w,h\nface.png,0,0,10,10,90,90\n")
    return folder


@pytest.fixture(autouse=True)
def start_there(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(download_dataset, "VOTES_URL", "http://127.0.0.1:1/")


def test_every_script_is_run():
    run = {line.split()[0] for line in (STAGES + BENCHMARKS).split("\n") if line}
    there = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("*.py")}
    there |= {path.relative_to(ROOT).as_posix() for path in ROOT.glob("benchmarks/*.py")}
    assert run == there - ELSEWHERE


def test_stages_run_in_order(workplace, capsys):
    run_in_order(STAGES, capsys)
    for file in ("results/comparison.png", "results/advanced_model.onnx", "live.mp4", "live.csv"):
        assert (workplace / file).exists(), file


def test_benchmarks_run_after_the_stages(workplace, capsys):
    assert (workplace / "results" / "advanced_model.onnx").exists(), "the stages have failed"
    run_in_order(BENCHMARKS, capsys)
