"""The training loop: learns, resumes bit for bit, stops on bad loss, keeps what is best."""

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conftest import make_split
from ferlab.data.splits import Split
from ferlab.files import UserError
from ferlab.tensor_files import save_tensors
from ferlab.training import cuda_graph, trainer
from ferlab.training import fit as training
from ferlab.training.checkpoint import load_checkpoint
from ferlab.training.device import choose_device
from ferlab.training.fit import fit
from ferlab.training.optimizers import (
    FilterMuon,
    averaging_decay,
    build_optimizers,
    moving_average,
)
from ferlab.training.recipe import Recipe, learning_rate_factor, require_targets
from ferlab.training.trainer import Trainer

TRAIN, VAL = make_split(20, seed=0), make_split(6, seed=1)
RECIPE = Recipe(
    epochs=4,
    batch_size=32,
    lr=0.05,
    weight_decay=1e-3,
    optimizer="sgd",
    warmup=0.1,
    label_smoothing=0.1,
    ema_epochs=0.5,
    clip=5.0,
    low_resolution=32,
    low_resolution_fraction=0.5,
    augmentation={"flip": True, "rotation": 5.0, "translation": 0.05, "contrast": 0.2},
    seed=3,
)


def change(**fields):
    return replace(RECIPE, **fields)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(128, 7),
    )


def train(path, recipe=RECIPE, resume=False, model=None):
    return fit(
        model or network(), TRAIN, VAL, recipe, path, resume, quiet=True, report=lambda line: None
    )


def same_weights(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


class Stop(Exception):
    pass


def stopped_after(epochs, monkeypatch, path, recipe=RECIPE):
    """Trains and is killed right after the checkpoint of `epochs`."""
    save, written = training.save_tensors, []

    def save_then_die(state, where):
        save(state, where)
        written.append(where)
        if len(written) == epochs:
            raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(training, "save_tensors", save_then_die)
        train(path, recipe)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_resumed_run_is_bit_identical(tmp_path, monkeypatch, optimizer, precision):
    recipe = change(optimizer=optimizer, precision=precision, oversample=optimizer == "adamw")
    whole = train(tmp_path / "whole.pth", recipe)
    stopped_after(2, monkeypatch, tmp_path / "parts.pth", recipe)
    # The resumed process starts from other weights: all must come from the file.
    parts = train(tmp_path / "parts.pth", recipe, resume=True, model=network(seed=9))
    assert same_weights(whole.model.state_dict(), parts.model.state_dict())
    deterministic = ("epoch", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy")
    for a, b in zip(whole.history, parts.history, strict=True):
        assert [a[key] for key in deterministic] == [b[key] for key in deterministic]
    last_whole = load_checkpoint(tmp_path / "whole.pth")
    last_parts = load_checkpoint(tmp_path / "parts.pth")
    assert same_weights(last_whole["model"], last_parts["model"])
    assert torch.equal(last_whole["random"]["generator"], last_parts["random"]["generator"])


def test_seed_decides(tmp_path):
    a, b = train(tmp_path / "a.pth"), train(tmp_path / "b.pth")
    c = train(tmp_path / "c.pth", change(seed=4))
    assert same_weights(a.model.state_dict(), b.model.state_dict())
    assert not same_weights(a.model.state_dict(), c.model.state_dict())


def test_learns(tmp_path):
    result = train(tmp_path / "c.pth", change(epochs=12, augmentation=None))
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"] - 0.3
    assert max(row["val_accuracy"] for row in result.history) > 0.6  # chance is 0.14


def test_low_resolution_comes_first_and_only_with_augmentation():
    sizes, one = [], Trainer(network(), TRAIN, RECIPE)
    for _ in range(RECIPE.epochs):
        sizes.append(one.size)
        one.history.append({})
    assert sizes == [32, 32, None, None]
    assert Trainer(network(), TRAIN, change(augmentation=None)).size is None
    assert Trainer(network(), TRAIN, change(epochs=1)).size is None


def test_schedule_ends_at_zero(tmp_path):
    rates = [row["lr"] for row in train(tmp_path / "c.pth").history]
    assert rates[-1] == pytest.approx(0, abs=1e-6) and max(rates) <= RECIPE.lr
    factor = learning_rate_factor(steps=100, warmup=0.1)
    values = [factor(step) for step in range(101)]
    assert max(values) == values[10] == 1
    assert values[:11] == sorted(values[:11]) and values[10:] == sorted(values[10:], reverse=True)
    assert factor(55) == pytest.approx(0.5) and factor(100) == 0


def test_weights_are_those_of_the_best_epoch(tmp_path, monkeypatch):
    scores = iter([0.99, 0.9, 0.5, 0.9])  # the first epoch is at low resolution: never best
    seen = []

    def validate(self, val):
        seen.append({k: v.clone() for k, v in self.ema.module.state_dict().items()})
        return 1.0, next(scores)

    monkeypatch.setattr(Trainer, "validate", validate)
    result = train(tmp_path / "c.pth", change(low_resolution_fraction=0.25))
    assert result.best_epoch == 2
    found = result.model.state_dict()
    # filters and matrices are rounded as their file has them
    stored = {k: v.half().float() if v.ndim > 1 else v for k, v in seen[1].items()}
    assert same_weights(found, stored)
    assert not same_weights(found, seen[3])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "c.pth"
    stopped_after(1, monkeypatch, path)
    before = path.read_bytes()
    with pytest.raises(UserError, match="not finite in epoch 1; lower --lr"):
        train(path, change(lr=1e30, clip=0.0, optimizer="sgd", warmup=0.0))
    assert path.read_bytes() == before


def test_interrupt_says_what_is_kept(tmp_path, monkeypatch):
    path, save = tmp_path / "c.pth", training.save_tensors

    def second_epoch_is_interrupted(state, where):
        if len(state["history"]) == 2:
            raise KeyboardInterrupt
        save(state, where)

    monkeypatch.setattr(training, "save_tensors", second_epoch_is_interrupted)
    with pytest.raises(
        KeyboardInterrupt, match=r"epoch 1 is in .*c.pth; continue with: python .* --resume$"
    ):
        train(path)
    assert len(load_checkpoint(path)["history"]) == 1


def test_a_new_run_reports_a_stopped_one_that_it_replaces(tmp_path, monkeypatch):
    path, lines = tmp_path / "c.pth", []

    def begin():
        lines.clear()
        fit(network(), TRAIN, VAL, RECIPE, path, resume=False, quiet=True, report=lines.append)
        return "\n".join(lines)

    path.write_bytes(b"no checkpoint")
    assert "stopped" not in begin()
    assert "stopped" not in begin(), "the last run came to its end"
    with monkeypatch.context() as patch:
        stopped_after(2, patch, path)
    assert f"{path} is of a run stopped after epoch 2 of 4" in begin()
    assert "add --resume" in lines[0] and len(load_checkpoint(path)["history"]) == 4


def test_resume_with_another_recipe_is_refused(tmp_path, monkeypatch):
    stopped_after(1, monkeypatch, tmp_path / "c.pth")
    fault = "was trained with lr 0.05, not 0.1, oversample False, not True; repeat its flags"
    with pytest.raises(UserError, match=fault):
        train(tmp_path / "c.pth", change(lr=0.1, oversample=True), resume=True)


def test_checkpoint_of_a_gpu_continues_on_a_cpu(tmp_path, monkeypatch):
    """Its generators have a state of 16 bytes, and its AdamW can be recorded in a CUDA graph."""
    path, recipe = tmp_path / "c.pth", change(optimizer="adamw", lr=1e-3)
    stopped_after(1, monkeypatch, path, recipe)
    state = load_checkpoint(path)
    for group in state["optimizers"][0]["param_groups"]:
        group["capturable"] = True
    state["random"] |= {name: torch.zeros(16, dtype=torch.uint8) for name in ("generator", "cuda")}
    save_tensors(state, path)
    lines, rows = [], []
    for _ in range(2):
        result = fit(network(seed=9), TRAIN, VAL, recipe, path, True, True, lines.append)
        rows.append([row["train_loss"] for row in result.history])
        save_tensors(state, path)
    note = "after epoch 1; made on another kind of device: other random numbers follow"
    assert lines[0] == f"resumed from {path} {note}"
    assert rows[0] == rows[1], "from the same seed"
    assert rows[0][-1] < rows[0][0]


def test_resume_of_a_network_of_other_hyperparameters_is_refused(tmp_path):
    def begin(config, resume=False):
        fit(network(), TRAIN, VAL, RECIPE, tmp_path / "c.pth", resume, True, print, config)

    begin({"classes": 7, "dropout": 0.0})
    begin({"classes": 7, "dropout": 0.0}, resume=True)
    with pytest.raises(UserError, match="was trained with dropout 0.0, not 0.5; repeat its flags"):
        begin({"classes": 7, "dropout": 0.5}, resume=True)


def test_resume_with_other_data_or_network_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "c.pth"
    stopped_after(1, monkeypatch, path)
    with pytest.raises(UserError, match="other data"):
        fit(network(), make_split(20, seed=5), VAL, RECIPE, path, True, quiet=True)
    other = nn.Sequential(nn.Flatten(), nn.Linear(48 * 48, 7))
    with pytest.raises(UserError, match="another network"):
        train(path, resume=True, model=other)
    with pytest.raises(UserError, match="is missing; start over without --resume"):
        train(tmp_path / "none.pth", resume=True)


def test_oversampling_draws_classes_equally():
    uneven = TRAIN.take(torch.arange(30))  # 20 of class 0, 10 of class 1, none of the others
    trainer = Trainer(network(), uneven, change(oversample=True, batch_size=30))
    drawn = torch.cat([uneven.labels[trainer.order().flatten()] for _ in range(60)])
    fractions = torch.bincount(drawn, minlength=7) / len(drawn)
    assert fractions[0].item() == pytest.approx(0.5, abs=0.05)
    plain = Trainer(network(), uneven, change(batch_size=30))
    assert sorted(plain.order().flatten().tolist()) == list(range(30))


def test_moving_average_follows_and_lags():
    averaged, count = [torch.zeros(3)], torch.tensor(1000)
    update = moving_average(averaging_decay(horizon=10))
    for _ in range(10):
        update(averaged, [torch.ones(3)], count)
    assert averaged[0][0].item() == pytest.approx(1 - 0.9**10)
    none = [torch.zeros(3)]
    moving_average(averaging_decay(horizon=0))(none, [torch.ones(3)], count)
    assert none[0][0] == 1


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_a_step_that_a_gpu_records_is_the_step(optimizer, monkeypatch):
    recipe = change(optimizer=optimizer, lr=1e-3, ema_epochs=1.0)
    monkeypatch.setattr(
        cuda_graph,
        "RecordedSteps",
        lambda step, generator, batch_size: (
            lambda batch, factor, weight: step(batch, torch.tensor(factor), torch.tensor(weight))
        ),
    )
    histories = []
    for records in (False, True):
        model = network().to(torch.float64)  # AdamW makes large steps of float32's rounding
        model.register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))
        one = Trainer(model, TRAIN, recipe)
        one.advance = cuda_graph.RecordedTraining(one) if records else one.step
        histories.append([one.epoch(VAL, quiet=True) for _ in range(recipe.epochs)])
    for expected, row in zip(*histories, strict=True):
        for key in ("lr", "train_loss", "val_loss"):  # the last is of the averaged weights
            assert row[key] == pytest.approx(expected[key], rel=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU of NVIDIA's")
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_a_gpu_records_steps_and_learns_the_same(optimizer):
    device = choose_device("cuda")
    train, val = TRAIN.to(device), VAL.to(device)
    recipe = change(optimizer=optimizer, lr=1e-3, epochs=6, ema_epochs=1.0)
    histories = []
    for records in (False, True):
        one = Trainer(network(), train, recipe)
        if not records:
            one.advance = one.step
        histories.append([one.epoch(val, quiet=True) for _ in range(recipe.epochs)])
    assert one.advance.recorded.graph is not None
    for expected, row in zip(*histories, strict=True):
        for key in ("lr", "train_loss", "val_loss"):
            assert row[key] == pytest.approx(expected[key], rel=0.01)


def test_biases_and_norms_do_not_decay():
    model = network()
    [optimizer] = build_optimizers(model, RECIPE)
    decaying, free = optimizer.param_groups
    assert all(p.ndim >= 2 for p in decaying["params"]) and decaying["weight_decay"] > 0
    assert all(p.ndim < 2 for p in free["params"]) and free["weight_decay"] == 0
    assert len(decaying["params"]) + len(free["params"]) == len(list(model.parameters()))


def test_fewer_images_than_a_batch_train_in_one_step():
    trainer = Trainer(network(), TRAIN, change(batch_size=10_000))
    assert trainer.order().shape == (1, len(TRAIN))


@pytest.mark.parametrize("shape", [(16, 8, 3, 3), (32, 4, 1, 1)])
def test_muon_is_torchs_in_bfloat16_and_near_it_in_float32(shape):
    def as_matrix(bank):
        return bank.detach().permute(0, 2, 3, 1).flatten(1).clone()

    torch.manual_seed(0)
    options = {"lr": 0.05, "weight_decay": 0.05, "momentum": 0.95}
    weights = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    matrix = nn.Parameter(as_matrix(weights))
    torchs = torch.optim.Muon([matrix], **options)
    banks, ours = {}, {}
    for dtype in (torch.bfloat16, torch.float32):
        banks[dtype] = nn.Parameter(weights.clone(memory_format=torch.preserve_format))
        ours[dtype] = FilterMuon([banks[dtype]], dtype=dtype, **options)
    for number in range(4):
        if number == 2:  # a checkpoint of torch's can be taken up
            for optimizer in ours.values():
                optimizer.load_state_dict(deepcopy(torchs.state_dict()))
        gradient = torch.randn(shape).contiguous(memory_format=torch.channels_last)
        matrix.grad = as_matrix(gradient)
        torchs.step()
        for dtype, optimizer in ours.items():
            banks[dtype].grad = gradient.clone()
            optimizer.step()
    moved = {dtype: as_matrix(bank - weights) for dtype, bank in banks.items()}
    expected = matrix.detach() - as_matrix(weights)
    assert torch.equal(moved[torch.bfloat16], expected)
    difference = (moved[torch.float32] - expected).norm() / expected.norm()
    assert 0 < difference < 0.03, "bfloat16 has three digits"


def test_muon_trains_the_filters_and_sgd_the_rest():
    model = network().to(memory_format=torch.channels_last)
    bank = model[3].weight  # the first convolution has one input channel
    before = bank.detach().clone()
    recipe = change(optimizer="muon", weight_decay=0.0, lr=0.1)
    muon, sgd = build_optimizers(model, recipe)
    assert muon.param_groups[0]["params"] == [bank]
    assert len(sgd.param_groups[0]["params"]) == len(list(model.parameters())) - 1
    model(TRAIN.images[:32]).square().sum().backward()
    muon.step()
    singular = torch.linalg.svdvals((bank.detach() - before).flatten(1)) / 0.1
    assert singular.min() > 0.5 and singular.max() < 1.5, "the update is nearly orthogonal"


# -- targets, their weights, and what is shared among processes ---------------------------------

THREE = Split(
    torch.zeros(4, 1, 48, 48),
    torch.tensor([0, 0, 0, 1]),
    ("a", "b", "c"),
    votes=torch.tensor([[0.5, 0.5, 0], [0.0, 1, 0], [0.0, 0, 0], [0.0, 0.5, 0.5]]),
    majority=torch.tensor([-1, 1, -1, -1]),
    agreement=torch.tensor([0, 8, 0, 0]),
)
PLAIN = {"augmentation": None, "label_smoothing": 0.0, "batch_size": 4}


def linear(classes=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48 * 48, classes))


def test_loss_is_the_cross_entropy_with_the_targets():
    logits = torch.tensor([[0.75, 0.125, 0.125], [0.25, 0.25, 0.5], [0.25, 0.5, 0.25]]).log()
    by_votes = Trainer(linear(), THREE, change(targets="votes", **PLAIN | {"batch_size": 3}))
    rows = torch.tensor([0, 1, 3])  # those with votes
    assert sorted(by_votes.order().flatten().tolist()) == rows.tolist()
    assert by_votes.train.images is THREE.images, "images are not copied"
    # -(log 0.75 + log 0.125) / 2, -log 0.25 and -(log 0.5 + log 0.25) / 2
    expected = ((0.415037 + 3) / 2 + 2 + (1 + 2) / 2) * math.log(2) / 3
    assert by_votes.loss(logits, rows).item() == pytest.approx(expected, rel=1e-5)
    smoothed = Trainer(linear(), THREE, change(targets="votes", **PLAIN | {"label_smoothing": 0.5}))
    assert smoothed.loss(logits, rows) == by_votes.loss(logits, rows), "votes are not smoothed"
    by_labels = Trainer(linear(), THREE, change(**PLAIN))
    assert sorted(by_labels.order().flatten().tolist()) == [0, 1, 2, 3]
    expected = (0.415037 + 2 + 2) * math.log(2) / 3  # these are all of class 0
    assert by_labels.loss(logits, torch.arange(3)).item() == pytest.approx(expected, rel=1e-5)


def test_splits_without_votes_or_without_a_majority_are_refused():
    for split in (TRAIN, replace(THREE, majority=torch.full((4,), -1))):
        with pytest.raises(UserError, match="the splits have no votes; .*dataset_preparation.py"):
            require_targets(split, "votes")


def test_balanced_weights_follow_the_targets():
    weights = Trainer(linear(), THREE, change(class_weights="balanced", **PLAIN)).class_weights
    assert weights[:2].tolist() == pytest.approx([4 / (3 * 3), 4 / (3 * 1)])  # three of a, one b
    recipe = change(class_weights="balanced", targets="votes", **PLAIN)
    weights = Trainer(linear(), THREE, recipe).class_weights
    # three images with votes, whose sums are 0.5, 2 and 0.5; a sum below 1 counts as 1
    assert weights.tolist() == pytest.approx([3 / (3 * 1), 3 / (3 * 2), 3 / (3 * 1)])
    assert Trainer(linear(), THREE, change(**PLAIN)).class_weights is None


def test_oversampling_follows_the_targets():
    votes = F.one_hot(torch.tensor([0, 1, 1, 1]), 3).float()
    split = replace(THREE, labels=torch.tensor([0, 0, 0, 1]), votes=votes)
    for targets, alone in (("labels", 3), ("votes", 0)):  # the only image of its class
        trainer = Trainer(linear(), split, change(oversample=True, targets=targets, **PLAIN))
        drawn = torch.cat([trainer.order().flatten() for _ in range(500)])
        assert (drawn == alone).float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_weights_are_chosen_by_the_majority():
    class Second(nn.Module):
        def forward(self, images):
            return torch.tensor([0.0, 1.0, 0.0]).expand(len(images), -1)

    split = replace(THREE, majority=torch.tensor([0, 1, 1, -1]))
    scores = {}
    for targets in ("labels", "votes"):
        one = Trainer(linear(), split, change(targets=targets, **PLAIN))
        one.ema.module = Second()
        scores[targets] = one.validate(split)
    assert scores["labels"][1] == 1 / 4
    assert scores["votes"][1] == 1 / 2, "of the images with votes, two have a majority"
    log_sum = math.log(2 + math.e)
    # the votes for the second class are 0.5, 1 and 0.5, on average 2 / 3
    assert scores["votes"][0] == pytest.approx(log_sum - 2 / 3, rel=1e-5)


@pytest.mark.parametrize("targets", ["labels", "votes"])
def test_mean_loss_of_the_processes_is_that_of_the_whole_batch(monkeypatch, targets):
    """With balanced weights too, whose sum differs from shard to shard."""
    split = make_split(4, 0, votes=True)
    split = split.take(torch.tensor([0, 1, 2, 3, 4, 5, 8, 11]))
    recipe = change(class_weights="balanced", targets=targets, **PLAIN | {"batch_size": 8})
    one = Trainer(linear(7), split, recipe)
    count = one.batch_size
    batch, logits = one.image_weights.argsort(), torch.randn(count, 7)
    whole = one.loss(logits, batch)
    weights = one.image_weights[batch]
    assert not weights[: count // 2].sum().isclose(weights[count // 2 :].sum())
    monkeypatch.setattr(trainer, "world_size", lambda: 2)
    parts = []
    for shard in (slice(0, count // 2), slice(count // 2, count)):
        one.shard = shard
        parts.append(one.loss(logits[shard], batch))
    torch.testing.assert_close(sum(parts) / 2, whole)


def test_loss_with_balanced_weights_is_torchs():
    uneven = TRAIN.take(torch.arange(30))  # 20 of class 0, 10 of class 1
    one = Trainer(linear(7), uneven, change(class_weights="balanced", augmentation=None))
    logits, rows = torch.randn(30, 7), torch.arange(30)
    weight = torch.tensor([30 / (7 * 20), 30 / (7 * 10), *[30 / 7] * 5])
    expected = F.cross_entropy(logits, uneven.labels, weight, label_smoothing=0.1)
    torch.testing.assert_close(one.loss(logits, rows), expected)
