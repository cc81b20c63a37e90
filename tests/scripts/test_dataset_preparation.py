"""Folders of images to split files: layouts, formats, duplicates, votes, and what is refused."""

import hashlib
import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import dataset_preparation
from conftest import refused, run_script, striped_face, write_pictures
from ferlab.data import reading, shards, workers
from ferlab.data.preparation import SCRATCH
from ferlab.data.preprocessing import preprocess
from ferlab.data.splits import CLASS_NAMES, load_split


@pytest.fixture
def source(tmp_path):
    """A dataset in Kaggle's layout, nested second copy included, without a test folder."""
    root = tmp_path / "dataset"
    write_pictures(root / "images" / "train", per_class=6, seed=0)
    write_pictures(root / "images" / "validation", per_class=4, seed=1)
    shutil.copytree(root / "images", tmp_path / "copy")
    shutil.move(tmp_path / "copy", root / "images" / "images")
    return root


def prepare(source, target, *flags):
    args = ["--source", source, "--data-dir", target, "--quiet", *flags]
    assert dataset_preparation.main([str(a) for a in args]) == 0
    return json.loads((target / "dataset.json").read_text())


def refuse(capsys, source, target, *flags):
    args = ["--source", source, "--data-dir", target, "--quiet", *flags]
    return refused(capsys, dataset_preparation, *args)


def sizes(target):
    return {name: len(load_split(target, name)) for name in ("train", "val", "test")}


def test_kaggle_layout_as_a_person_runs_it(source, tmp_path):
    target = tmp_path / "out"
    result = run_script("dataset_preparation.py", "--source", source, "--data-dir", target)
    assert result.returncode == 0, result.stderr
    assert "reading: 100%" in result.stderr
    assert sizes(target) == {"train": 42, "val": 14, "test": 14}, "the nested copy is not read"
    for name in ("val", "test"):
        assert load_split(target, name).class_counts().tolist() == [2] * 7, "stratified"
    described = json.loads((target / "dataset.json").read_text())
    assert described["splits"]["train"]["classes"] == dict.fromkeys(CLASS_NAMES, 6)
    assert described["splits"]["val"]["digest"] == load_split(target, "val").digest()


def test_pixels_and_labels_are_those_of_the_files(source, tmp_path):
    prepare(source, tmp_path / "out")
    split = load_split(tmp_path / "out", "train")
    for label, name in enumerate(CLASS_NAMES):
        for number in range(6):
            file = source / "images" / "train" / name / f"{number}.png"
            grey = np.asarray(Image.open(file)).astype(np.float32)
            row = label * 6 + number
            np.testing.assert_allclose(split.images[row, 0], grey / 127.5 - 1, atol=1e-6)
            assert split.labels[row] == label


def test_same_seed_same_bytes_other_seed_other_test_split(source, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        prepare(source, tmp_path / name, "--seed", seed)
    for split in ("train", "val", "test"):
        one, two = (tmp_path / folder / f"{split}_data.pt" for folder in "ab")
        assert one.read_bytes() == two.read_bytes()
    three = tmp_path / "c" / "test_data.pt"
    assert three.read_bytes() != (tmp_path / "a" / "test_data.pt").read_bytes()


def test_test_folder_alone_makes_a_test_split_alone(capsys, source, tmp_path):
    write_pictures(tmp_path / "unseen" / "test", 2, 1)
    described = prepare(tmp_path / "unseen", tmp_path / "out")
    assert list(described["splits"]) == ["test"]
    assert [p.name for p in (tmp_path / "out").glob("*.pt")] == ["test_data.pt"]
    prepare(source, tmp_path / "full")
    line = refuse(capsys, tmp_path / "unseen", tmp_path / "full")
    assert "choose another --data-dir" in line
    assert sizes(tmp_path / "full")["test"] == 14


def test_any_format_size_and_colour(source, tmp_path):
    """Images are recognised by their content, not by their name."""
    folder = source / "images" / "train" / "happy"
    rng = np.random.default_rng(9)
    colour = rng.integers(0, 256, (90, 70, 3), dtype=np.uint8)
    grey = striped_face(3, rng, size=64)
    Image.fromarray(colour).save(folder / "100", "BMP")
    Image.fromarray(colour).convert("RGBA").save(folder / "101.txt", "WEBP", lossless=True)
    Image.fromarray(colour).quantize(256).save(folder / "102.gif")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "103.jpg", "PNG")
    Image.fromarray(grey).convert("LA").save(folder / "104.png")
    Image.fromarray(grey).save(folder / "105.tiff")
    Image.fromarray(colour).convert("CMYK").save(folder / "106.jpg", quality=98)
    exif = Image.Exif()
    exif[0x0112] = 3  # turned upside down
    Image.fromarray(grey[::-1, ::-1].copy()).save(folder / "107.png", exif=exif)
    described = prepare(source, tmp_path / "out")
    assert described["splits"]["train"]["classes"]["happy"] == 14
    split = load_split(tmp_path / "out", "train")
    faces = split.images[split.labels == 3][6:]
    from_colour = preprocess(torch.from_numpy(colour).permute(2, 0, 1))
    from_grey = preprocess(torch.from_numpy(grey)[None])
    for index in (0, 1):
        torch.testing.assert_close(faces[index], from_colour)
    for index in (2, 6):  # few colours, lossy
        assert (faces[index] - from_colour).abs().mean() < 0.1
    for index in (3, 4, 5, 7):
        torch.testing.assert_close(faces[index], from_grey)


def test_unusable_images_are_skipped_and_listed(source, tmp_path, capsys):
    folder = source / "images" / "train" / "sad"
    Image.new("L", (48, 48), 0).save(folder / "50.png")
    (folder / "51.png").write_bytes(b"not an image")
    whole = (folder / "0.png").read_bytes()
    (folder / "52.png").write_bytes(whole[: len(whole) // 2])
    (folder / "53.png").write_bytes(b"")
    (folder / "notes.txt").write_text("images are recognised by their content")
    described = prepare(source, tmp_path / "out")
    assert "files left out: 2 not an image, 1 " in capsys.readouterr().out
    reasons = {entry["file"].split("/")[-1]: entry["reason"] for entry in described["skipped"]}
    assert reasons["50.png"] == "all pixels are equal"
    assert reasons["51.png"] == "not an image"
    assert reasons["52.png"].startswith("unreadable")
    assert reasons["53.png"] == "empty file"
    assert reasons["notes.txt"] == "not an image"
    assert len(reasons) == 5
    assert described["splits"]["train"]["classes"]["sad"] == 6


def test_identical_pixels_are_never_in_two_splits(tmp_path, capsys):
    root = tmp_path / "dataset"
    for seed, name in enumerate(("train", "val", "test")):
        write_pictures(root / name, 4, seed)
    shutil.copy(root / "test/fear/0.png", root / "val/fear/90.png")  # val gives way to test
    shutil.copy(root / "test/fear/0.png", root / "train/fear/90.png")
    shutil.copy(root / "val/sad/0.png", root / "train/happy/90.png")  # and has another label
    shutil.copy(root / "train/sad/1.png", root / "train/sad/91.png")  # within train: stays
    described = prepare(root, tmp_path / "out")
    assert described["duplicates"]["removed"] == {"test": 0, "val": 1, "train": 2}
    assert described["duplicates"]["within_split"] == {"test": 0, "val": 0, "train": 1}
    assert described["duplicates"]["in_train"] == {"test": 1, "val": 1}
    assert described["duplicates"]["conflicts"] == [
        {"happy": ["train/happy/90.png"], "sad": ["val/sad/0.png"]}
    ]
    printed = capsys.readouterr().out
    assert "1 from val, 2 from train" in printed
    assert "1 of the 28 images of test were also in train (3.6%)" in printed
    assert sizes(tmp_path / "out") == {"train": 29, "val": 28, "test": 28}
    seen = {}
    for name in ("train", "val", "test"):
        for image in load_split(tmp_path / "out", name).images:
            assert seen.setdefault(image.numpy().tobytes(), name) == name
    described = prepare(root, tmp_path / "kept", "--keep-duplicates")
    assert sizes(tmp_path / "kept") == {"train": 31, "val": 29, "test": 28}
    assert described["duplicates"]["in_train"] == {"test": 1, "val": 2}
    shutil.rmtree(root / "val")
    shutil.copytree(root / "test", root / "val")
    line = refuse(capsys, root, tmp_path / "out")
    assert "each image of the val split is also in another split" in line


def test_unknown_and_missing_class_folders(capsys, source, tmp_path):
    images = source / "images"
    (images / "train" / "sad").rename(images / "train" / "gloomy")
    line = refuse(capsys, source, tmp_path / "out")
    assert f"{images}: unknown class gloomy" in line and "--class-map gloomy=CLASS" in line
    shutil.rmtree(images / "train" / "gloomy")
    for path in (images / "train" / "fear").iterdir():
        path.write_bytes(b"")
    line = refuse(capsys, source, tmp_path / "out")
    assert "train split: no usable image in fear, sad" in line
    assert "--classes angry,disgust,happy,neutral,surprise" in line
    assert not list((tmp_path / "out").iterdir())


def test_too_few_images_to_split(capsys, tmp_path):
    write_pictures(tmp_path / "data" / "train", 2, 0)
    write_pictures(tmp_path / "data" / "validation", 1, 1)
    assert "too few images of a class" in refuse(capsys, tmp_path / "data", tmp_path / "out")


@pytest.mark.parametrize(("name", "flags"), [("parts", ["--shard", "1/2"]), (SCRATCH, [])])
def test_file_where_a_folder_is_needed(capsys, source, tmp_path, name, flags):
    (tmp_path / name).write_text("")
    line = refuse(capsys, source, tmp_path, *flags)
    assert f"cannot write to folder {tmp_path / name}: File exists" in line


def test_failure_keeps_the_older_splits(capsys, source, tmp_path):
    target = tmp_path / "out"
    prepare(source, target)
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    shutil.rmtree(source / "images" / "validation" / "fear")
    refuse(capsys, source, target)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before


# -- parts of several machines -------------------------------------------------------------------


def read_part(source, target, shard, *flags):
    args = ["--source", source, "--data-dir", target, "--quiet", "--shard", shard, *flags]
    return dataset_preparation.main([str(a) for a in args])


def decoded_shards(monkeypatch):
    """Returns a list to which the first row of each shard that is decoded from now on is added."""
    decoded, decode = [], reading._decode
    monkeypatch.setattr(workers, "available_cores", lambda: 1)  # in this process, to count

    def counted(layout, rows):
        decoded.append(rows.start)
        return decode(layout, rows)

    monkeypatch.setattr(reading, "_decode", counted)
    return decoded


@pytest.fixture
def parted(tmp_path, monkeypatch):
    """A dataset of 92 files in 12 shards, with a duplicate across parts and an unusable image."""
    monkeypatch.setattr(shards, "SHARD", 8)
    write_pictures(tmp_path / "data" / "train", 10, 0)
    write_pictures(tmp_path / "data" / "test", 3, 1)
    shutil.copy(tmp_path / "data/test/surprise/0.png", tmp_path / "data/train/angry/0.png")
    (tmp_path / "data" / "train" / "sad" / "90.png").write_bytes(b"not an image")
    return tmp_path / "data"


def assert_equal_preparation(one, two):
    for name in ("train_data.pt", "val_data.pt", "test_data.pt", "dataset.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_parts_of_three_machines_are_joined_to_the_bytes_of_one_run(
    parted, tmp_path, monkeypatch, capsys
):
    """The machines share no file system: each has a copy of the files with times of its own."""
    monkeypatch.chdir(tmp_path)
    prepare(parted.relative_to(tmp_path), tmp_path / "one")
    for machine in (1, 2, 3):
        monkeypatch.chdir(tmp_path)
        copy = tmp_path / f"machine{machine}"
        shutil.copytree(parted, copy / "data")
        for path in copy.rglob("*.png"):
            os.utime(path, (machine, machine))
        monkeypatch.chdir(copy)
        assert read_part("data", "out", f"{machine}/3") == 0
        assert not list((copy / "out").glob("*.pt"))
        shutil.copytree(copy / "out" / "parts", tmp_path / "out" / "parts", dirs_exist_ok=True)
    assert "parts: 4 of 12 shards are in out/parts; missing: --shard 1/3, 2/3" in (
        capsys.readouterr().out
    )
    monkeypatch.chdir(tmp_path)
    decoded = decoded_shards(monkeypatch)
    described = prepare("data", tmp_path / "out")
    assert decoded == [], "all is taken from the parts"
    assert described["duplicates"]["removed"]["train"] == 1 and len(described["skipped"]) == 1
    assert "can be removed" in capsys.readouterr().out
    assert_equal_preparation(tmp_path / "one", tmp_path / "out")
    prepare("data", tmp_path / "out", "--seed", 1)
    assert decoded == [], "the parts stay"


def test_part_that_is_missing_torn_or_stopped_is_read_by_the_join(
    parted, tmp_path, monkeypatch, capsys
):
    prepare(parted, tmp_path / "one")
    out = tmp_path / "out"
    assert read_part(parted, out, "1/3") == read_part(parted, out, "3/3") == 0
    (out / "parts" / "000010.npy").write_bytes(b"torn")
    shutil.copy(out / "parts" / "000010.json", out / "parts" / "000010 (2).json")
    pixels = (out / "parts" / "000011.npy").read_bytes()
    (out / "parts" / "000011.npy").write_bytes(pixels[:-1] + bytes([pixels[-1] ^ 1]))
    (out / "parts" / "000001.json").unlink()
    record = out / "parts" / "000008.json"
    record.write_text(record.read_text().replace('"dataset": "', '"dataset": "0'))
    decoded = decoded_shards(monkeypatch)
    prepare(parted, out)
    assert sorted(decoded) == [8, 32, 40, 48, 56, 64, 80, 88]
    printed = capsys.readouterr().out
    assert "parts: 6 of 12 shards" in printed
    assert "missing: --shard 1/3, 2/3, 3/3; what is missing is read now" in printed
    assert_equal_preparation(tmp_path / "one", out)


def test_parts_of_other_files_are_never_taken(parted, tmp_path, monkeypatch, capsys):
    """Uncompressed images of one size: neither names nor sizes differ."""
    faces = {path: Image.open(path).convert("L") for path in parted.rglob("?.png")}
    shutil.rmtree(parted)
    for path, face in faces.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        face.save(path.with_suffix(".bmp"))
    out = tmp_path / "out"
    assert [read_part(parted, out, f"{k}/3") for k in (1, 2, 3)] == [0, 0, 0]
    other = tmp_path / "other"
    shutil.copytree(parted, other)
    changed = other / "test" / "surprise" / "2.bmp"
    content = changed.read_bytes()
    changed.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    prepare(other, tmp_path / "one")
    decoded = decoded_shards(monkeypatch)
    prepare(other, out)
    assert decoded == [88], "the shard of the changed file"
    assert_equal_preparation(tmp_path / "one", out)


def test_parts_of_another_dataset_or_of_other_flags(parted, tmp_path, capsys):
    out = tmp_path / "out"
    assert read_part(parted, out, "1/3") == 0
    kept = sorted((out / "parts").rglob("*"))
    capsys.readouterr()
    for flags in (["--classes", "angry,happy"], ["--classes", "angry,happy", "--shard", "2/3"]):
        line = refuse(capsys, parted, out, *flags)
        assert "is a part of another dataset, or was read with other flags" in line
        assert f"remove {out / 'parts'}" in line
    write_pictures(tmp_path / "second" / "train", 10, 0)
    write_pictures(tmp_path / "second" / "test", 4, 1)
    assert "is a part of another dataset" in refuse(capsys, tmp_path / "second", out)
    assert sorted((out / "parts").rglob("*")) == kept


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "1/0", "a/b", "1/3/5", "1.5/3"])
def test_shard_that_is_none(parted, tmp_path, capsys, shard):
    with pytest.raises(SystemExit, match="2"):
        read_part(parted, tmp_path / "out", shard)
    assert f"argument --shard: {shard!r} is not K/N" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# -- votes ---------------------------------------------------------------------------------------


@pytest.fixture
def numbered(tmp_path):
    """A dataset whose files are named by their row; two labels of three are those of the table."""
    root, rng = tmp_path / "numbered", np.random.default_rng(0)
    for start, (split, per_class) in enumerate((("train", 6), ("val", 3), ("test", 3))):
        for label, name in enumerate(CLASS_NAMES):
            (root / split / name).mkdir(parents=True)
            for number in range(per_class):
                raters = (label + (number % 3 == 2)) % 7
                row = 7000 * start + 49 * number + 7 * label + raters  # row % 7 is what they say
                image = Image.fromarray(striped_face(label, rng))
                image.save(root / split / name / f"{row}.png")
    return root


def change_rows(table, path, rows):
    """Writes `table` to `path`, with other counts on some rows."""
    lines = table.read_text().splitlines()
    for row, counts in rows.items():
        lines[1 + row] = f"Training,fer{row:07}.png,{counts}"
    path.write_text("\n".join(lines) + "\n")
    return path


NO_FACE, CONTEMPT, UNDECIDED = "0,0,1,0,0,0,0,0,0,9", "2,0,0,0,0,0,0,8,0,0", "5,5,0,0,0,0,0,0,0,0"


def test_votes_are_looked_up_by_row(numbered, votes_table, tmp_path, capsys):
    # in train: angry's first two; in val and test: angry's first
    rows = {0: NO_FACE, 49: CONTEMPT, 7000: NO_FACE, 14000: UNDECIDED}
    table = change_rows(votes_table, tmp_path / "table.csv", rows)
    described = prepare(numbered, tmp_path / "out", "--votes", table)
    assert sizes(tmp_path / "out") == {"train": 41, "val": 21, "test": 21}, "one is left out"
    train, val, test = (load_split(tmp_path / "out", n) for n in ("train", "val", "test"))
    # train begins with angry's rows 49 (contempt), 99 (the raters: disgust), 147, 196, 246
    assert train.labels[:5].tolist() == [0] * 5
    assert train.majority[:5].tolist() == [-1, 1, 0, 0, 1]
    assert train.agreement[:5].tolist() == [8, 7, 7, 7, 7]
    expected = [[0, 0, 0, 0, 1, 0, 0], [0, 7 / 9, 2 / 9, 0, 0, 0, 0]]
    torch.testing.assert_close(train.votes[:2], torch.tensor(expected))
    assert val.majority[0] == -1 and val.agreement[0] == 0 and val.votes[0, 6] == 1
    assert test.majority[0] == -1 and test.votes[0].tolist() == [0, 0, 0, 0.5, 0.5, 0, 0]
    votes = described["votes"]
    assert votes["file"] == table.as_posix()
    assert votes["sha256"] == hashlib.sha256(table.read_bytes()).hexdigest()
    assert votes["no_face_left_out_of_train"] == ["train/angry/0.png"]
    assert votes["splits"] == {
        "train": {"majority": 40, "contempt": 1},
        "val": {"majority": 20, "contempt": 0},
        "test": {"majority": 20, "contempt": 0},
    }
    # of 84 images a third contradict the raters; four that agree have no majority for a class
    assert votes["label_agrees_with_majority"] == round((56 - 4) / (84 - 4), 4)
    assert described["splits"]["train"]["classes"]["angry"] == 5
    printed = capsys.readouterr().out
    assert "the label agrees with it on 65.0% of them" in printed
    assert "as most raters see no face: 1 images" in printed and "train/angry/0.png" in printed


def test_table_shifted_by_one_row_is_refused(numbered, votes_table, tmp_path, capsys):
    target = tmp_path / "out"
    prepare(numbered, target, "--votes", votes_table)
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    header, first, *others = votes_table.read_text().splitlines()
    shifted = tmp_path / "shifted.csv"
    shifted.write_text("\n".join([header, *others, first]))
    line = refuse(capsys, numbered, target, "--votes", shifted)
    assert f"{shifted} is not of these images" in line and "--no-votes" in line
    shifted.write_text("\n".join([header, *others]))
    line = refuse(capsys, numbered, target, "--votes", shifted)
    assert f"{shifted} has 35,886 rows, not 35,887" in line
    assert "none.csv is missing" in refuse(
        capsys, numbered, target, "--votes", tmp_path / "none.csv"
    )
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before


def test_files_without_numbers_have_no_votes(numbered, votes_table, tmp_path, capsys):
    folder = numbered / "train" / "sad"
    next(folder.iterdir()).rename(folder / "portrait.png")
    line = refuse(capsys, numbered, tmp_path / "out", "--votes", votes_table)
    assert "train/sad/portrait.png has no votes: its name is not a row" in line
    assert "--no-votes" in line and not list((tmp_path / "out").iterdir())


def test_downloaded_table_is_taken_with_the_downloaded_dataset_alone(
    numbered, votes_table, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    shutil.copytree(numbered, dataset_preparation.SOURCE)

    def votes_of(*flags):
        assert dataset_preparation.main(["--quiet", *flags]) == 0
        return json.loads((tmp_path / "processed_data" / "dataset.json").read_text())["votes"]

    assert votes_of() is None, "it is not there yet"
    assert "votes: none; models are trained on and judged by the labels" in capsys.readouterr().out
    assert load_split("processed_data", "train").votes is None
    shutil.copy(votes_table, "data/fer2013new.csv")
    assert votes_of()["file"] == "data/fer2013new.csv"
    assert load_split("processed_data", "train").votes is not None
    assert votes_of("--source", str(numbered)) is None, "a dataset of other images"
    assert votes_of("--no-votes") is None
    with pytest.raises(SystemExit, match="2"):
        dataset_preparation.main(["--no-votes", "--votes", "data/fer2013new.csv"])


FER2013 = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


@pytest.fixture
def fer2013_csv(tmp_path):
    """A stand-in for fer2013.csv whose row r has the label that row r of the table's raters see."""
    rng, lines = np.random.default_rng(0), ["emotion,pixels,Usage"]
    for row in range(84):
        usage = ("Training", "PublicTest", "PrivateTest")[row // 28]
        pixels = " ".join(map(str, striped_face(row % 7, rng).ravel()))
        lines.append(f"{FER2013.index(CLASS_NAMES[row % 7])},{pixels},{usage}")
    path = tmp_path / "fer2013.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_rows_of_fer2013_csv_have_votes(fer2013_csv, votes_table, tmp_path, monkeypatch, capsys):
    rows = {28: CONTEMPT, 56: UNDECIDED}
    table = change_rows(votes_table, tmp_path / "table.csv", rows)
    described = prepare(fer2013_csv, tmp_path / "out", "--votes", table)
    assert sizes(tmp_path / "out") == {"train": 28, "val": 28, "test": 28}
    assert described["votes"]["label_agrees_with_majority"] == 1
    val = load_split(tmp_path / "out", "val")
    assert val.labels.tolist() == [label for label in range(7) for _ in range(4)]
    assert val.majority.tolist() == [-1, *val.labels.tolist()[1:]] and val.agreement[0] == 8
    assert described["layout"] == {
        "form": "CSV of pixels, fer2013.csv",
        "root": fer2013_csv.as_posix(),
        "class_map": {str(number): name for number, name in enumerate(FER2013)},
        "images": {"train": 28, "val": 28, "test": 28},
        "left_out": {},
    }
    printed = capsys.readouterr().out
    assert printed.index("found: CSV of pixels, fer2013.csv") < printed.index("class     ")
    assert "class map: 0 -> angry, 1 -> disgust" in printed

    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    shutil.copy(votes_table, tmp_path / "data")
    assert prepare(fer2013_csv, tmp_path / "out")["votes"] is None, "not all rows of FER2013"
    monkeypatch.setattr(dataset_preparation, "ROWS", 84)
    assert prepare(fer2013_csv, tmp_path / "out")["votes"]["file"] == "data/fer2013new.csv"
    assert prepare(fer2013_csv, tmp_path / "out", "--no-votes")["votes"] is None


def test_votes_for_some_of_the_classes(fer2013_csv, votes_table, tmp_path, capsys):
    flags = ["--votes", votes_table, "--classes", "happy,neutral,sad"]
    described = prepare(fer2013_csv, tmp_path / "out", *flags)
    val = load_split(tmp_path / "out", "val")
    assert val.votes.shape == (12, 3) and val.majority.tolist() == val.labels.tolist()
    # seven raters of ten see the label, two the next class: happy, neutral; neutral, sad; sad, none
    expected = [[7 / 9, 2 / 9, 0]] * 4 + [[0, 7 / 9, 2 / 9]] * 4 + [[0, 0, 1]] * 4
    torch.testing.assert_close(val.votes, torch.tensor(expected))
    assert described["votes"]["splits"]["val"] == {"majority": 12, "contempt": 0}
    flags = ["--votes", votes_table, "--class-map", "bored,disgust,fear,happy,sad,glad,neutral"]
    line = refuse(capsys, fer2013_csv, tmp_path / "out", *flags)
    assert "FER+ has no votes for bored, glad" in line and "--no-votes" in line


@pytest.mark.slow
def test_real_dataset(real_archive, real_votes, tmp_path):
    shutil.unpack_archive(real_archive, tmp_path / "dataset")
    described = prepare(tmp_path / "dataset", tmp_path / "out", "--votes", real_votes)
    read = sum(split["images"] for split in described["splits"].values())
    removed = sum(described["duplicates"]["removed"].values())
    no_face = len(described["votes"]["no_face_left_out_of_train"])
    assert read + removed + len(described["skipped"]) + no_face == 32_127
    assert removed > 300 and len(described["duplicates"]["conflicts"]) > 10
    assert 0.67 < described["votes"]["label_agrees_with_majority"] < 0.69
