"""Near-duplicates of train images: found at every position, and counted separately."""

import torch

import softmax
from benchmarks import near_duplicates
from conftest import make_split, refused
from ferlab.constants import SPLITS
from ferlab.data.splits import load_split, save_splits


def test_a_near_duplicate_is_found_lighter_paler_or_mirrored():
    train, others = make_split(5, seed=0).images, make_split(2, seed=1).images
    changed = torch.stack([train[3] * 0.5 + 0.2, train[20].flip(-1)])
    most, place = near_duplicates.nearest(torch.cat([changed, others]), train)
    assert place[:2].tolist() == [3, 20] and torch.allclose(most[:2], torch.ones(2), atol=1e-5)
    assert most[2:].max() < 0.99


def test_all_train_faces_are_searched(monkeypatch):
    train = make_split(5, seed=0).images
    monkeypatch.setattr(near_duplicates, "CHUNK", 8)
    assert near_duplicates.nearest(train, train)[1].tolist() == list(range(len(train)))


def test_accuracy_is_counted_with_and_without_near_duplicates():
    with_one = torch.tensor([True, True, False, False])
    same, right = torch.tensor([True, False, True, True]), torch.tensor([True, True, True, False])
    assert near_duplicates.row(with_one, same, [right]) == ["2", "0.500", "1.000 / 0.500"]
    assert near_duplicates.row(~same & same, same, [right]) == ["0", "-", "- / 0.750"]


def test_other_faces_than_the_results_are_refused(capsys, data_dir, tmp_path):
    args = ["--results-dir", tmp_path, "--epochs", 1, "--quiet", "--data-dir"]
    assert softmax.main([*map(str, args), str(data_dir)]) == 0
    splits = {name: load_split(data_dir, name) for name in SPLITS}
    splits["val"].images[0] = 0
    save_splits(splits, tmp_path)
    args = ["--results-dir", tmp_path, "--data-dir"]
    assert near_duplicates.main([*map(str, args), str(data_dir)]) == 0
    assert "softmax regression: with / without" in capsys.readouterr().out
    assert "of other val images" in refused(capsys, near_duplicates, *args, tmp_path)
