"""Images that do not fit into a device's memory: the results of those that do, to the bit."""

from dataclasses import replace

import pytest
import torch
from test_training import RECIPE, network

from conftest import make_split
from ferlab.files import UserError
from ferlab.training import streaming
from ferlab.training.fit import fit
from ferlab.training.prediction import predict_members, predict_views
from ferlab.training.recipe import rows_and_targets

CPU = torch.device("cpu")
TRAIN, VAL = make_split(20, seed=0, votes=True), make_split(6, seed=1, votes=True)
CHANGES = {
    "labels": {},
    "votes": {"targets": "votes"},
    "drawn": {"oversample": True, "augmentation": None},
}


def trained(path, recipe):
    """Returns the history without times, the weights, and the predictions on val."""
    result = fit(network(), TRAIN, VAL, recipe, path, resume=False, quiet=True, report=str)
    history = [{k: v for k, v in row.items() if "seconds" not in k} for row in result.history]
    predictions = predict_members([(result.model, 1.5)], VAL.images)
    return history, result.model.state_dict(), predictions


@pytest.mark.parametrize("kind", CHANGES)
def test_streamed_training_is_that_from_memory_to_the_bit(tmp_path, monkeypatch, kind):
    recipe = replace(RECIPE, **CHANGES[kind])
    history, weights, predictions = trained(tmp_path / "c.pth", recipe)
    batches, stream = [], streaming.stream

    def counted(images, *args):
        for batch in stream(images, *args):
            batches.append(len(batch))
            yield batch

    for module in ("trainer", "prediction"):
        monkeypatch.setattr(f"ferlab.training.{module}.stream", counted)
    monkeypatch.setenv(streaming.LIMIT, "0.0001")
    streamed = trained(tmp_path / "d.pth", recipe)
    steps = len(rows_and_targets(TRAIN, recipe.targets)[0]) // 32
    assert batches.count(32) == steps * recipe.epochs
    assert len(batches) == (steps + 1) * recipe.epochs + 1, "val in one batch, and at the end"
    assert streamed[0] == history
    assert all(torch.equal(streamed[1][name], weights[name]) for name in weights)
    for one, two in zip(streamed[2], predictions, strict=True):
        assert (one == two).all()


@pytest.mark.parametrize("count", [0, 1, 128, 300])
def test_streamed_prediction(monkeypatch, count):
    images, model = make_split(43, seed=2).images[:count], network().eval()
    expected = predict_views(model, images)
    monkeypatch.setenv(streaming.LIMIT, "0")
    assert all(map(torch.equal, predict_views(model, images), expected))
    assert [len(each) for each in expected] == [count, count]


def test_batches_come_in_order_and_into_one_tensor():
    images, target = torch.arange(100.0).view(50, 2), torch.empty(4, 2)
    batches = torch.randperm(50, generator=torch.Generator().manual_seed(0)).split(4)
    count = 0
    for rows, batch in zip(batches, streaming.stream(images, batches, target), strict=True):
        assert torch.equal(batch, images[rows]) and batch.data_ptr() == target.data_ptr()
        count += len(batch)
    assert count == 50


def test_splits_are_moved_as_far_as_they_fit(monkeypatch):
    meta = torch.device("meta")
    monkeypatch.setenv(streaming.LIMIT, str(1.5 * VAL.images.nbytes / 1e9))
    train, val = streaming.on_device([TRAIN, VAL], meta)
    assert train.images.device == CPU and train.labels.device == train.votes.device == meta
    assert val.images.device == val.labels.device == meta
    assert streaming.is_streamed(train.images, meta) and not streaming.is_streamed(val.images, meta)


def test_limit_that_is_no_number(monkeypatch):
    monkeypatch.setenv(streaming.LIMIT, "8GB")
    with pytest.raises(UserError, match="FERLAB_DEVICE_MEMORY=8GB is not a number of GB, as 8"):
        streaming.on_device([TRAIN], CPU)
