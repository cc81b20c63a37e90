"""Datasets of more and fewer classes than seven, through every stage."""

import csv
import importlib.util
import json
import re

import cv2
import numpy as np
import pytest
from PIL import Image

import compare_results
import dataset_preparation
import export_onnx
import live_inference
import model_runs
from conftest import drawn_frame, striped_face

EIGHT = ("angry", "contempt", "disgust", "fear", "happy", "neutral", "sad", "surprise")
THREE = ("happy", "neutral", "sad")


@pytest.mark.parametrize("class_names", [THREE, EIGHT], ids=["3", "8"])
def test_classes_flow_through_all_stages(class_names, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for split, images in (("train", 10), ("val", 4), ("test", 4)):
        for label, name in enumerate(EIGHT):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for number in range(images):
                image = Image.fromarray(striped_face(label, rng))
                image.save(tmp_path / "data" / split / name / f"{number}.png")
    splits, results = tmp_path / "splits", tmp_path / "results"
    keep = [] if class_names == EIGHT else ["--classes", ",".join(class_names)]
    source = ["--source", str(tmp_path / "data"), "--data-dir", str(splits), "--quiet"]
    assert dataset_preparation.main([*source, *keep]) == 0
    described = json.loads((splits / "dataset.json").read_text())
    assert described["class_names"] == list(class_names)
    assert described["splits"]["val"]["classes"] == dict.fromkeys(class_names, 4)

    folders = ["--data-dir", splits, "--results-dir", results]
    for name in ("softmax", "advanced"):
        assert model_runs.run(name, *folders) == 0
        record = model_runs.metrics_of(results, name)
        assert list(record["test"]["per_class"]) == list(class_names)
        assert np.shape(record["test"]["confusion_matrix"]) == (len(class_names),) * 2
        text = (results / f"{name}_results.txt").read_text()
        assert f"classes  {', '.join(class_names)}" in re.sub(r"  +", "  ", text)
        assert (results / f"{name}_confusion_matrix.png").stat().st_size > 5000
    assert compare_results.main(["--results-dir", str(results)]) == 0

    weights = [results / "advanced_model.pth"]
    if all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime"))):
        assert export_onnx.main([str(word) for word in folders]) == 0
        weights.append(results / "advanced_model.onnx")
    frame, log = tmp_path / "frame.png", tmp_path / "faces.csv"
    cv2.imwrite(str(frame), drawn_frame([(320, 240, 110)])[0])
    for path in weights:
        words = ["--source", frame, "--weights", path, "--log", log, "--no-window"]
        assert live_inference.main([*map(str, words), "--output", str(tmp_path / "o.png")]) == 0
        (row,) = csv.DictReader(log.open())
        assert list(row)[-len(class_names) :] == list(class_names)
        assert sum(float(row[name]) for name in class_names) == pytest.approx(1, abs=0.01)
