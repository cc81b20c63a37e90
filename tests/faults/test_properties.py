"""Whatever text, boxes or predictions come: a fault is named, and the numbers are right."""

import argparse
import contextlib
import math

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ferlab.constants import CLASS_NAMES
from ferlab.data.annotations import read_raf_db
from ferlab.data.classes import parse_class_map
from ferlab.data.layouts import find_layout
from ferlab.data.tables import pixels_of_row
from ferlab.data.votes import COLUMNS, Votes, read_table, summarise
from ferlab.entry import shown
from ferlab.evaluation.calibration import calibration_error, cross_entropy, fit_temperature
from ferlab.evaluation.metrics import evaluate
from ferlab.files import UserError
from ferlab.live.boxes import iou
from ferlab.live.flags import frame_size, port
from ferlab.live.sources import camera_number, local_path
from ferlab.live.tracking import Tracker, best_pairs

quick = settings(
    max_examples=100,
    derandomize=True,  # the same cases in each run
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
line = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
cell = st.one_of(st.integers().map(str), st.floats().map(str), line, st.sampled_from(CLASS_NAMES))
CSV_HEADS = (
    "path,label",
    "emotion,pixels,Usage",
    "image;emotion;split",
    "file\tclass",
    "path,path",
)


def named(error: UserError) -> None:
    assert len(shown(error)) > 10 and shown(error).isprintable()


# -- parsers -----------------------------------------------------------------------------------


@quick
@given(st.sampled_from(CSV_HEADS), st.lists(st.lists(cell, max_size=4), max_size=6))
def test_a_csv_of_any_rows(tmp_path, head, rows):
    path = tmp_path / "table.csv"
    separator = next(mark for mark in ",;\t" if mark in head)
    path.write_text("\n".join([head, *(separator.join(row) for row in rows)]), encoding="utf-8")
    try:
        layout = find_layout(path)
    except UserError as error:
        named(error)
    else:
        assert len(layout.labels) == len(layout.names)
        assert set(layout.labels) <= set(range(len(layout.class_names)))


@quick
@given(st.binary(max_size=300))
@example(b"")
@example(b"\xff\xfeemotion,pixels\n0,1 2")
@example(b'path,label\n"open')
def test_any_bytes_as_a_csv(tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    for read in (find_layout, read_table):
        with pytest.raises(UserError) as error:
            read(path)
        named(error.value)


@quick
@given(st.lists(line, max_size=5))
def test_a_list_of_raf_db_of_any_lines(tmp_path, lines):
    (tmp_path / "Image" / "aligned").mkdir(parents=True, exist_ok=True)
    text = "\n".join(["train_00001_aligned.jpg 4", *lines])
    (tmp_path / "list_patition_label.txt").write_text(text, encoding="utf-8")
    try:
        read_raf_db(tmp_path, tmp_path)
    except UserError as error:
        named(error)


@quick
@given(st.binary(max_size=100))
@example(b'0,"1 2 3",Training')
@example(b"0," + b"255 " * 2304)
@example(b"0," + b"256 " * 2304)
def test_pixels_of_any_row(row):
    try:
        pixels = pixels_of_row(row, 1)
    except (UserError, ValueError):
        return
    assert pixels.dtype == np.uint8 and pixels.shape[0] == pixels.shape[1] > 0


@quick
@given(line, st.lists(line, unique=True, max_size=4))
def test_any_class_map(flag, names):
    try:
        result = parse_class_map(flag, names)
    except UserError as error:
        named(error)
    else:
        assert set(result) <= set(names)


@quick
@given(line)
def test_any_text_as_a_flag(text):
    assert camera_number(text) is None or camera_number(text) >= -1
    local_path(text)
    for parse, check in (
        (frame_size, lambda size: min(size) > 0),
        (port, lambda number: 0 <= number < 65536),
    ):
        with contextlib.suppress(ValueError, argparse.ArgumentTypeError):
            assert check(parse(text))


# -- votes, metrics, calibration ----------------------------------------------------------------


@quick
@given(arrays(np.int64, (6, len(COLUMNS)), elements=st.integers(0, 10)))
def test_votes_of_any_counts(counts):
    """The rule of Barsoum et al. 2016, computed row by row."""
    counts[:, 0] += counts.sum(1) == 0
    found = summarise(counts, CLASS_NAMES)
    assert isinstance(found, Votes)
    sums = found.votes.sum(1)
    assert np.all(np.isclose(sums, 1) | (sums == 0))
    for row, majority, agreement in zip(counts, found.majority, found.agreement, strict=True):
        kept = [number if number > 1 else 0 for number in row]
        most = max(kept)
        clear = 2 * most > sum(kept) > 0
        column = COLUMNS[kept.index(most)]
        assert (majority >= 0) <= clear
        if clear and column in ("neutral", "disgust", "fear"):
            assert CLASS_NAMES[majority] == column and agreement == most


predictions = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        arrays(np.int64, n, elements=st.integers(0, 6)),
        arrays(np.float64, (n, 7), elements=st.floats(0.01, 1)),
    )
)


@quick
@given(predictions)
def test_metrics_are_those_of_scikit_learn(case):
    labels, scores = case
    probs = scores / scores.sum(1, keepdims=True)
    preds = probs.argmax(1)
    result = evaluate(labels, probs, CLASS_NAMES, 3)
    every = {"labels": range(7), "average": "macro", "zero_division": 0}
    for key, value in {
        "accuracy": sklearn.metrics.accuracy_score(labels, preds),
        "macro_f1": sklearn.metrics.f1_score(labels, preds, **every),
        "macro_precision": sklearn.metrics.precision_score(labels, preds, **every),
        "macro_recall": sklearn.metrics.recall_score(labels, preds, **every),
    }.items():
        assert result[key] == pytest.approx(value), key
    occurring = {"labels": sorted(set(labels)), "average": "macro", "zero_division": 0}
    recall = sklearn.metrics.recall_score(labels, preds, **occurring)
    assert result["balanced_accuracy"] == pytest.approx(recall)
    low, high = result["accuracy_interval"]
    assert 0 <= low <= result["accuracy"] <= high <= 1
    assert np.sum(result["confusion_matrix"]) == len(labels)


@quick
@given(predictions, st.floats(0.05, 5))
def test_temperature_and_calibration(case, scale):
    labels, scores = case
    targets = np.eye(7)[labels]
    logits = scale * np.log(scores)
    temperature = fit_temperature(logits, targets)
    assert 0 < temperature < math.inf
    assert cross_entropy(logits / temperature, targets) <= cross_entropy(logits, targets) + 1e-3
    probs = np.exp(logits - logits.max(1, keepdims=True))
    probs /= probs.sum(1, keepdims=True)
    assert 0 <= calibration_error(probs, targets) <= 1
    expected = sklearn.metrics.log_loss(labels, probs, labels=range(7))
    assert cross_entropy(logits, targets) == pytest.approx(expected, rel=1e-4, abs=1e-4)


# -- tracking ----------------------------------------------------------------------------------

box = st.tuples(*[st.integers(-50, 700)] * 2, *[st.integers(1, 300)] * 2)


@quick
@given(box, box)
def test_overlap_of_any_boxes(one, other):
    assert 0 <= iou(one, other) <= 1 and iou(one, other) == iou(other, one)
    assert iou(one, one) == pytest.approx(1)


@quick
@given(st.integers(1, 5).flatmap(lambda n: arrays(float, (n, 4), elements=st.floats(0, 1))))
def test_best_pairs_use_each_once(ious):
    pairs = best_pairs(ious)
    rows, columns = zip(*pairs, strict=True) if pairs else ((), ())
    assert len(set(rows)) == len(rows) and len(set(columns)) == len(columns)
    greedy = max((ious[row, column] for row in range(len(ious)) for column in range(4)), default=0)
    assert sum(ious[pair] for pair in pairs) >= greedy - 1e-9


@quick
@given(
    st.lists(st.tuples(st.lists(box, max_size=4), st.floats(0, 3), st.booleans()), max_size=12),
    st.booleans(),
)
def test_tracks_of_any_detections(frames, local):
    """Ids are never used twice, boxes stay finite, and what was found now says so."""
    tracker = Tracker((lambda gray, found: found) if local else (lambda gray, found: None))
    gray, time_s, gone, alive = np.zeros((480, 640), np.uint8), 0.0, set(), set()
    for boxes, seconds, detected in frames:
        time_s += seconds
        faces = tracker.update(gray, (boxes, []) if detected else None, time_s)
        ids = [face.id for face in faces]
        assert len(set(ids)) == len(ids) and not gone & set(ids)
        now = {face.id for face in tracker.faces}
        gone |= alive - now
        alive = now
        for face in faces:
            assert np.isfinite(face.box).all() and min(face.box[2:]) > 0
            assert face.found_at <= time_s
