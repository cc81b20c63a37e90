"""One command of each script, in the README's order, on a tiny dataset: each finds the files of
those before it in its default folders.
"""

import importlib
import shlex
import shutil
import time

import pytest

import download_dataset
from conftest import ROOT, write_pictures

STAGES = """
download_dataset.py
dataset_preparation.py
baseline.py
softmax.py --epochs 2
basic_nn.py --epochs 2
advanced_network.py --preset quick --soft-labels none --epochs 2
compare_results.py
transfer_learning.py --from-scratch --size 48 --epochs 1
tune_hyperparameters.py softmax --trials 2 --epochs 1
export_onnx.py
soft_labels.py
live_inference.py --source sample --no-window --max-frames 20 --output live.mp4 --log live.csv
benchmarks/ablation.py --epochs 1 --only "seed 1"
benchmarks/crop.py
benchmarks/export.py --seconds 0.1
benchmarks/freed_memory.py --faces 140 --rounds 1
benchmarks/live.py --sizes 160x120 --age-seconds 1
benchmarks/memory_mapping.py --faces 5000
benchmarks/near_duplicates.py
benchmarks/preparation.py --rounds 1
benchmarks/scaling.py --script softmax.py --faces 140 --epochs 1
benchmarks/time_to_accuracy.py --soft-labels none --epochs 1
""".strip().splitlines()
PARTS = {"benchmarks/webcam.py"}  # imported by another one


def test_every_script_is_run():
    scripts = {
        f.relative_to(ROOT).as_posix() for d in ("", "benchmarks") for f in (ROOT / d).glob("*.py")
    }
    assert {line.split()[0] for line in STAGES} == scripts - PARTS


@pytest.mark.timeout(900)
def test_scripts_run_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(download_dataset, "VOTES_URL", "http://127.0.0.1:1/")
    dataset = tmp_path / "data" / download_dataset.NAME
    write_pictures(dataset / "images" / "train", per_class=12, seed=0)
    write_pictures(dataset / "images" / "validation", per_class=8, seed=1)
    times = []
    for line in STAGES:
        script, *words = shlex.split(line)
        module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
        start = time.perf_counter()
        code = module.main(words)
        captured = capsys.readouterr()
        times.append(f"{time.perf_counter() - start:5.1f} s  {line}")
        with capsys.disabled():
            print(times[-1])
        assert code == 0, f"{line}\n{captured.out}\n{captured.err}"
    assert (tmp_path / "results" / "comparison.png").exists()
    assert (tmp_path / "live.mp4").exists()
    assert shutil.which
