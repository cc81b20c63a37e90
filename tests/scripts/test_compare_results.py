"""The comparison of models, on made-up results folders."""

import json
import os
import re

import numpy as np
import pytest
from PIL import Image

import compare_results
from ferlab.data.splits import CLASS_NAMES
from ferlab.evaluation.metrics import accuracy_of, evaluate

TITLES = {"baseline": "majority class", "softmax": "softmax regression", "basic_nn": "MLP"}
N = 60


def make_predictions(seed, fraction, n=N):
    """Returns labels, and probs that are right for about `fraction` of them."""
    labels = np.random.default_rng(0).integers(0, 7, n)
    rng = np.random.default_rng(seed)
    preds = np.where(rng.random(n) < fraction, labels, (labels + 1) % 7)
    return labels, np.eye(7, dtype="float32")[preds]


def write_model(folder, model, probs=None, labels=None, seed=0, splits=("test",), **changes):
    """Writes a model's metrics and predictions as the model scripts do; returns the metrics.

    With a `majority`, int `(N,)`, the raters judge too.
    """
    if probs is None:
        labels, probs = make_predictions(seed + len(model), 0.5)
    record = {"model": model, "title": TITLES.get(model, model)}
    record["parameters"] = changes.get("parameters", 16135)
    run = {"command": f"python {model}.py --data-dir faces", "seed": seed, "seconds": 41.4}
    run["targets"] = "votes" if "votes" in folder.parts else "labels"
    majority = changes.get("majority")
    if model != "baseline":
        run |= {"epochs": 3, "images_per_second": 12345}
    run |= {key: changes[key] for key in ("recipe", "network") if key in changes}
    record["run"] = run
    for split in splits:
        record[split] = evaluate(labels, probs, CLASS_NAMES, majority=3)
        record[split]["digest"] = changes.get("digest", "same")
        if majority is not None:
            correct = probs.argmax(1) == majority
            raters = accuracy_of(int(correct.sum()), int((majority >= 0).sum()))
            record[split]["raters"] = raters | {"majority_accuracy": 0.3}
    if "train_digest" in changes:
        record["train"] = {**record[splits[0]], "digest": changes["train_digest"]}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{model}_metrics.json").write_text(json.dumps(record))
    arrays = {}
    for split in splits:
        arrays |= {f"{split}_labels": labels.astype("int8"), f"{split}_probs": probs}
        if majority is not None:
            arrays[f"{split}_majority"] = majority.astype("int8")
    np.savez_compressed(folder / f"{model}_predictions.npz", **arrays)
    return record


def compare(folder, capsys):
    """Runs the script; returns the text that it wrote, which is what it printed."""
    code = compare_results.main(["--results-dir", str(folder)])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    text = (folder / "comparison.txt").read_text(encoding="utf-8")
    assert out.startswith(text)
    for line in text.splitlines():  # a path that takes more stays whole, alone in its line
        assert len(line) <= 100 or len(line.split()) == 1
    with Image.open(folder / "comparison.png") as image:
        assert image.format == "PNG"
        image.load()
    return text


def fail(folder, capsys):
    """Runs the script, which has to fail; returns its one line."""
    before = sorted(folder.rglob("*")) if folder.is_dir() else None
    assert compare_results.main(["--results-dir", str(folder)]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert (sorted(folder.rglob("*")) if folder.is_dir() else None) == before
    return err


def paired(text):
    """Returns the lines about McNemar's tests joined, so that breaks do not matter."""
    return " ".join(text.split("McNemar's test on the same images\n")[1].split())


def test_table_holds_the_numbers_in_the_order_of_teaching(tmp_path, capsys):
    models = ("zebra", "advanced", "softmax", "ant", "transfer", "baseline", "basic_nn")
    records = {}
    for seed, model in enumerate(models):
        labels, probs = make_predictions(seed, (1 + seed) / 8)
        records[model] = write_model(tmp_path, model, probs, labels)
    lines = compare(tmp_path, capsys).splitlines()
    assert lines[0] == f"The models on {N} test images"
    order = ("baseline", "softmax", "basic_nn", "advanced", "transfer", "ant", "zebra")
    for model, line in zip(order, lines[3:10], strict=True):
        title, test = records[model]["title"], records[model]["test"]
        low, high = (f"{bound:.3f}"[1:] for bound in test["accuracy_interval"])
        assert line.startswith(f"{title} ")
        assert line[len(title) :].split() == [
            "labels",
            f"{test['accuracy']:.4f}",
            f"[{low},",
            f"{high}]",
            "-",  # there are no votes
            f"{test['macro_f1']:.4f}",
            "16,135",
            "41",
        ]


def test_mcnemar_is_the_exact_binomial():
    right = np.array([1] * 9 + [0] * 1 + [1] * 5 + [0] * 4, dtype=bool)
    other = np.array([0] * 9 + [1] * 1 + [1] * 5 + [0] * 4, dtype=bool)
    # 10 differ, 9 to 1: 2 * (C(10, 0) + C(10, 1)) / 2**10 = 22 / 1024
    assert compare_results.mcnemar(right, other) == (9, 1, pytest.approx(22 / 1024))
    assert compare_results.mcnemar(other, right) == (1, 9, pytest.approx(22 / 1024))
    assert compare_results.mcnemar(right, right) == (0, 0, 1.0)


def test_neighbours_are_tested_on_the_same_images(tmp_path, capsys):
    labels = np.arange(N) % 7
    wrong = np.eye(7, dtype="float32")[(labels + 1) % 7]
    right = np.eye(7, dtype="float32")[labels]
    rows = np.arange(N)[:, None]
    write_model(tmp_path, "softmax", np.where(rows < 11, right, wrong), labels)
    write_model(tmp_path, "basic_nn", np.where((rows >= 10) & (rows < 19), right, wrong), labels)
    text = paired(compare(tmp_path, capsys))
    # 8 to 10 of 18: the two-sided p is 1 - C(18, 9) / 2**18 = 0.815
    expected = (
        "MLP vs softmax regression, by the labels: 8 images only the first classifies correctly,"
    )
    assert f"{expected} 10 only the second; p = 0.81 How to read" in text
    assert "Bonferroni" not in text
    write_model(tmp_path, "baseline", wrong, labels)
    text = paired(compare(tmp_path, capsys))
    # 11 to 0: 2 / 2**11 = 0.00098
    expected = "11 images only the first classifies correctly, 0 only the second; p = 0.00098"
    assert f"softmax regression vs majority class, by the labels: {expected}" in text
    assert "With 2 tests, hold p against 0.05 / 2 = 0.025 (Bonferroni)." in text


def test_one_model_alone(tmp_path, capsys):
    write_model(tmp_path, "advanced")
    text = compare(tmp_path, capsys)
    assert len(text.splitlines()) == 4
    assert "McNemar" not in text and "seeds" not in text


def test_long_titles_are_wrapped_not_cut(tmp_path, capsys):
    title = "ResNet-18 backbone, first frozen and then fine-tuned"
    for model in ("advanced", "transfer"):
        record = write_model(tmp_path, model)
        (tmp_path / f"{model}_metrics.json").write_text(json.dumps({**record, "title": title}))
    table = compare(tmp_path, capsys).split("McNemar")[0]
    assert table.count("ResNet-18 backbone,") == 2 and table.count("fine-tuned") == 2


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "is damaged"),
        (lambda path: path.write_bytes(b"no zip"), "is damaged"),
        (lambda path: np.savez(path, val_labels=np.zeros(3)), "has no test predictions"),
        (lambda path: _save(path, *make_predictions(1, 0.5, N - 1)), "is of another run than"),
        (lambda path: _save(path, *make_predictions(1, 0.9)), "is of another run than"),
        (lambda path: _save(path, np.zeros(N), np.zeros(N)), "is damaged"),
        (lambda path: _lengthen(path), "is of another run than"),
        (lambda path: _relabel(path), "their predictions are of different images"),
    ],
)
def test_predictions_that_do_not_fit_leave_the_test_out(tmp_path, capsys, damage, reason):
    for model in ("baseline", "softmax", "basic_nn"):
        write_model(tmp_path, model)
    damage(tmp_path / "basic_nn_predictions.npz")
    text = paired(compare(tmp_path, capsys))
    assert "MLP vs softmax regression: not tested, as " in text
    assert reason in text
    assert "softmax regression vs majority class, by the labels: " in text and "p = " in text


def _save(path, labels, probs):
    np.savez(path, test_labels=labels, test_probs=probs)


def _lengthen(path):
    """Adds an image that the model gets wrong: as many are right."""
    content = np.load(path)
    probs = np.vstack([content["test_probs"], np.eye(7)[:1]])
    _save(path, np.append(content["test_labels"], 1), probs)


def _relabel(path):
    """Names all classes anew: as many are right, of other labels."""
    content = np.load(path)
    _save(path, (content["test_labels"] + 1) % 7, np.roll(content["test_probs"], 1, axis=1))


def test_seeds_are_shown_as_mean_and_sample_deviation(tmp_path, capsys):
    records = [
        write_model(folder, "softmax", *make_predictions(seed, fraction)[::-1], seed=seed)
        for folder, seed, fraction in (
            (tmp_path, 0, 0.4),
            (tmp_path / "seed_1", 1, 0.5),
            (tmp_path / "seed_2", 2, 0.7),
        )
    ]
    write_model(tmp_path / "seed_again", "softmax", *make_predictions(9, 0.1)[::-1], seed=2)
    write_model(tmp_path, "baseline")
    *_, heading, columns, line = compare(tmp_path, capsys).splitlines()
    assert "mean ± sample standard deviation" in heading
    assert columns.split() == ["targets", "by", "the", "labels", "by", "the", "raters", "seeds"]
    a, b, c = (record["test"]["accuracy"] for record in records)
    mean = (a + b + c) / 3
    std = (((a - mean) ** 2 + (b - mean) ** 2 + (c - mean) ** 2) / 2) ** 0.5
    assert line.split() == [
        *("softmax", "regression", "labels", f"{mean:.4f}", "±", f"{std:.4f}", "-", "0,", "1,", "2")
    ]


def test_one_seed_twice_is_no_second_seed(tmp_path, capsys):
    write_model(tmp_path, "softmax")
    write_model(tmp_path / "seed_0", "softmax")
    assert "seeds" not in compare(tmp_path, capsys)


RECIPE = {"epochs": 3, "precision": "float32", "seed": 0, "augmentation": {"flip": True}}


@pytest.mark.parametrize(
    "changes, difference",
    [
        ({"parameters": 20000}, "20,000 parameters, not 16,135"),
        ({"recipe": RECIPE | {"epochs": 9}}, "epochs 9, not 3"),
        ({"recipe": RECIPE | {"augmentation": {"flip": False}}}, "flip False, not True"),
        ({"recipe": RECIPE | {"augmentation": None}}, "augmentation False, not True"),
        ({"network": {"classes": 7, "dropout": 0.5}}, "dropout 0.5, not 0.0"),
    ],
)
def test_another_recipe_is_no_other_seed(tmp_path, capsys, changes, difference):
    network = {"classes": 7, "dropout": 0.0}
    write_model(tmp_path, "softmax", recipe=RECIPE, network=network)
    changes = {"recipe": RECIPE | {"seed": 1}, "network": network} | changes
    write_model(tmp_path / "seed_1", "softmax", seed=1, **changes)
    left_out = f"Left out of the seeds: {tmp_path / 'seed_1' / 'softmax_metrics.json'}, which has"
    left_out += f" {difference} as {tmp_path / 'softmax_metrics.json'} has"
    text = compare(tmp_path, capsys)
    assert "mean ±" not in text and " ".join(text.split()).endswith(left_out)
    write_model(tmp_path / "seed_2", "softmax", seed=2, recipe=RECIPE | {"seed": 2})
    text = compare(tmp_path, capsys)
    assert "  0, 2\n" in text and " ".join(text.split()).endswith(left_out)


def test_seeds_on_machines_and_of_versions_that_differ_go_together(tmp_path, capsys):
    write_model(tmp_path, "softmax", recipe=RECIPE)
    newer = RECIPE | {"seed": 1, "precision": "bfloat16", "dropout": 0.5}
    write_model(tmp_path / "seed_1", "softmax", seed=1, recipe=newer, network={"classes": 7})
    assert "  0, 1\n" in compare(tmp_path, capsys)


def test_models_on_labels_and_on_votes_are_compared(tmp_path, capsys):
    """Each pair by the right judge, with counts that differ between the judges."""
    labels = np.arange(N) % 7
    majority = np.where(np.arange(N) < 40, labels, (labels + 1) % 7)
    majority[36:40] = -1

    def predict(by_label, by_majority):  # how many of each kind: the first 36, the last 20
        preds = (labels + 3) % 7
        preds[:by_label] = labels[:by_label]
        preds[40 : 40 + by_majority] = majority[40 : 40 + by_majority]
        return np.eye(7, dtype="float32")[preds]

    def write(folder, model, *counts, **changes):
        return write_model(folder, model, predict(*counts), labels, majority=majority, **changes)

    write(tmp_path, "softmax", 10, 0)
    write(tmp_path, "basic_nn", 20, 0)
    write(tmp_path / "seed_1", "basic_nn", 22, 0, seed=1)
    write(tmp_path / "votes", "softmax", 10, 6)
    write(tmp_path / "votes", "basic_nn", 18, 9)
    write(tmp_path / "votes" / "seed_1", "basic_nn", 20, 10, seed=1)
    text = compare(tmp_path, capsys)
    assert text.startswith("The models on 60 test images, of which 56 have a majority")
    columns = re.compile(r"(labels|votes) +(0\.\d+) \[.+?\] +(0\.\d+) \[")
    rows = [columns.search(line) for line in text.splitlines()[3:7]]
    assert [row.groups() for row in rows] == [
        ("labels", f"{10 / 60:.4f}", f"{10 / 56:.4f}"),
        ("labels", f"{20 / 60:.4f}", f"{20 / 56:.4f}"),
        ("votes", f"{10 / 60:.4f}", f"{16 / 56:.4f}"),
        ("votes", f"{18 / 60:.4f}", f"{27 / 56:.4f}"),
    ]
    tests = paired(text)
    # by the labels 10 to 0: 2 / 2**10
    assert "MLP vs softmax regression, by the labels: 10 images only the first" in tests
    assert "0 only the second; p = 0.002" in tests
    # by the raters 8 + 3 to 0: 2 / 2**11
    expected = "11 images only the first classifies correctly, 0 only the second; p = 0.00098"
    assert f"MLP, on votes vs softmax regression, on votes, by the raters: {expected}" in tests
    # votes against labels, by the raters: 6 to 0, and 9 to 2
    first = "softmax regression, on votes vs softmax regression, by the raters: 6 images only"
    second = "MLP, on votes vs MLP, by the raters: 9 images only the first classifies correctly, 2"
    assert first in tests and second in tests
    assert "With 4 tests" in tests
    seeds = [" ".join(line.split()) for line in text.splitlines()[-2:]]
    # 20 and 22, 18 and 20 of 60; 20 and 22, 27 and 30 of 56
    assert seeds == [
        "MLP labels 0.3500 ± 0.0236 0.3750 ± 0.0253 0, 1",
        "MLP votes 0.3167 ± 0.0236 0.5089 ± 0.0379 0, 1",
    ]


def test_remedies_of_models_on_votes_train_on_votes(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "votes"
    write_model(folder, "softmax", splits=("train",))
    remedy = f"python softmax.py --evaluate --targets votes --results-dir {folder}\n"
    error = fail(tmp_path, capsys)
    assert "no test or val numbers" in error and error.endswith(remedy)
    (folder / "softmax_metrics.json").write_text("{}")
    remedy = f"python softmax.py --targets votes --results-dir {folder}\n"
    assert fail(tmp_path, capsys).endswith(remedy)
    monkeypatch.chdir(tmp_path)  # the default folder needs no flag
    folder.parent.joinpath("results").mkdir()
    folder.rename(tmp_path / "results" / "votes")
    assert compare_results.main([]) == 1
    assert capsys.readouterr().err.endswith("with: python softmax.py --targets votes\n")


def test_val_is_used_where_only_val_is_there_for_all(tmp_path, capsys):
    write_model(tmp_path, "baseline", splits=("val", "test"))
    write_model(tmp_path, "softmax", splits=("val",))
    text = compare(tmp_path, capsys)
    assert text.startswith(f"The models on {N} val images")
    assert (
        "Left out" not in text and "softmax regression vs majority class, by the labels: " in text
    )


def test_models_without_the_split_are_left_out(tmp_path, capsys):
    write_model(tmp_path, "baseline", splits=("test",))
    write_model(tmp_path, "softmax", splits=("val",))
    write_model(tmp_path / "seed_1", "baseline", splits=("val",), seed=1)
    text = compare(tmp_path, capsys)
    assert text.startswith(f"The models on {N} test images")
    left_out = [line for line in text.splitlines() if line.startswith("Left out: ")]
    assert [line.split(",")[0] for line in left_out] == [
        "Left out: softmax regression",
        "Left out: majority class",
    ]
    assert text.count("\nsoftmax regression") == 0


def test_other_test_images_are_an_error(tmp_path, capsys):
    for model in ("baseline", "basic_nn", "advanced"):
        write_model(tmp_path, model)
    write_model(tmp_path, "softmax", digest="other")
    error = fail(tmp_path, capsys)
    assert f"{tmp_path / 'softmax_metrics.json'} and {tmp_path / 'baseline_metrics.json'}" in error
    command = f"python softmax.py --evaluate --data-dir faces --results-dir {tmp_path}"
    assert error.endswith(f"{command}\n")


def test_weights_of_another_train_split_are_not_evaluated_but_trained_anew(tmp_path, capsys):
    write_model(tmp_path, "baseline", train_digest="new")
    write_model(tmp_path, "softmax", digest="other", train_digest="old")
    assert "run: python softmax.py --data-dir faces --results-dir" in fail(tmp_path, capsys)


def test_a_seed_run_on_other_test_images_is_an_error(tmp_path, capsys):
    write_model(tmp_path, "softmax")
    for seed in (1, 2):  # the main run decides, not the majority
        write_model(tmp_path / f"seed_{seed}", "softmax", digest="other", seed=seed)
    error = fail(tmp_path, capsys)
    paths = [folder / "softmax_metrics.json" for folder in (tmp_path / "seed_1", tmp_path)]
    assert f"{paths[0]} and {paths[1]}" in error
    assert f"--results-dir {tmp_path / 'seed_1'}" in error


def test_no_results(tmp_path, capsys, monkeypatch):
    remedy = "make results with: python baseline.py"
    assert f"has no *_metrics.json; {remedy} --results-dir {tmp_path}" in fail(tmp_path, capsys)
    monkeypatch.chdir(tmp_path)
    assert compare_results.main([]) == 1
    assert capsys.readouterr().err == f"error: results is missing; {remedy}\n"
    (tmp_path / "results").mkdir()
    assert compare_results.main([]) == 1
    assert capsys.readouterr().err == f"error: results has no *_metrics.json; {remedy}\n"


def _without(*keys):
    def change(record):
        inner = record
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]
        return json.dumps(record)

    return change


@pytest.mark.parametrize(
    "content",
    [
        lambda record: json.dumps(record)[:-30],
        lambda record: json.dumps({**record, "test": [1]}),
        lambda record: json.dumps(record).replace('_interval": [', '_interval": [-'),
        _without("title"),
        _without("run", "seed"),
        _without("test", "digest"),
        _without("test", "macro_f1"),
    ],
)
def test_a_faulty_metrics_file_is_named(tmp_path, capsys, content):
    """tests/faults/test_bad_input.py damages the file and each of its values."""
    write_model(tmp_path, "baseline")
    record = write_model(tmp_path, "advanced")
    (tmp_path / "advanced_metrics.json").write_text(content(record))
    error = fail(tmp_path, capsys)
    assert f"{tmp_path / 'advanced_metrics.json'} is not what the model scripts write" in error
    assert f"python advanced_network.py --results-dir {tmp_path}" in error


def test_a_folder_that_cannot_be_written(tmp_path, capsys, monkeypatch):
    write_model(tmp_path, "softmax")

    def refuse(source, target):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    assert f"cannot write {tmp_path / 'comparison.txt'}: Permission" in fail(tmp_path, capsys)
