"""The forms of datasets, from small stand-ins: what is understood, and what is refused."""

import csv
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from conftest import striped_face
from ferlab.constants import CLASS_NAMES
from ferlab.data.classes import ORDERS
from ferlab.data.found import in_order
from ferlab.data.layouts import find_layout
from ferlab.data.votes import row_numbers
from ferlab.files import UserError

EIGHT = ("angry", "contempt", *CLASS_NAMES[1:])
FER2013 = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
RAF_DB = ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral")
AFFECTNET = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt")
CK = ("neutral", "angry", "contempt", "disgust", "fear", "happy", "sad", "surprise")


def touch(path):
    """Makes an empty file: finding a form decodes nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def class_folders(root, names, images=2):
    for name in map(str, names):
        for number in range(images):
            touch(root / name / f"{number}.jpg")


def found(source, **flags):
    """Returns `{split: {class: number of images}}`, and the layout."""
    layout = find_layout(source, **flags)
    counts = {
        split: {
            name: int((layout.labels[rows] == index).sum())
            for index, name in enumerate(layout.class_names)
        }
        for split, rows in layout.splits.items()
    }
    return counts, layout


def labels_of(layout):
    """Returns the class of each file by its name."""
    names = (layout.class_names[label] for label in layout.labels)
    return dict(zip(layout.names.tolist(), names, strict=True))


def refused(source, **flags):
    with pytest.raises(UserError) as error:
        find_layout(source, **flags)
    text = str(error.value)
    assert "\n" not in text
    return text


# -- names of splits and wrapping folders --------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ("Training", "PublicTest", "PrivateTest"),
        ("Train", "Validation", "Test"),
        ("train", "valid", "test"),
        ("train", "val", "test"),
        ("TRAIN", "VAL", "TESTING"),
        ("FER2013Train", "FER2013Valid", "FER2013Test"),
    ],
)
def test_names_of_splits(tmp_path, names):
    for number, name in enumerate(names):
        class_folders(tmp_path / name, CLASS_NAMES, number + 1)
    counts, layout = found(tmp_path)
    assert counts == {
        split: dict.fromkeys(CLASS_NAMES, number + 1)
        for number, split in enumerate(("train", "val", "test"))
    }
    assert all(name in layout.form for name in names)


def test_train_and_test_as_of_msambare(tmp_path):
    for split, prefix in (("train", "Training"), ("test", "PrivateTest")):
        for name in CLASS_NAMES:
            touch(tmp_path / split / name / f"{prefix}_{split}.jpg")
    counts, _ = found(tmp_path)
    assert {split: sum(n.values()) for split, n in counts.items()} == {"train": 7, "test": 7}


def test_one_folder_without_splits(tmp_path):
    class_folders(tmp_path, CLASS_NAMES)
    counts, layout = found(tmp_path)
    assert counts == {"all": dict.fromkeys(CLASS_NAMES, 2)}
    assert layout.form == "class folders without splits"


@pytest.mark.parametrize("wrap", ["wrap/images", "a/b/c", "images/images", "train/train"])
def test_wrapping_folders(tmp_path, wrap):
    place = "" if wrap == "train/train" else wrap
    for split in ("train", "test"):
        inner = split if wrap == "train/train" else ""
        class_folders(tmp_path / place / split / inner, CLASS_NAMES)
    assert found(tmp_path)[0].keys() == {"train", "test"}


def test_nested_copy_is_left_out_and_counted(tmp_path):
    for place in ("wrap/images", "wrap/images/images"):
        for split in ("train", "validation"):
            class_folders(tmp_path / place / split, CLASS_NAMES)
    touch(tmp_path / "wrap" / "images" / "train" / "list.txt")
    counts, layout = found(tmp_path)
    assert counts["train"] == dict.fromkeys(CLASS_NAMES, 2)
    assert layout.left_out == {
        "in wrap/images/images/, which is no split": 28,
        "beside the folders of the classes": 1,
    }
    assert layout.names[0] == "wrap/images/train/angry/0.jpg"


def test_files_are_in_the_order_of_class_and_number_also_in_folders_of_a_class(tmp_path):
    class_folders(tmp_path, ("sad", "happy"), 11)
    touch(tmp_path / "sad" / "person 2" / "1.jpg")
    names = find_layout(tmp_path).names.tolist()
    assert names == [
        *(f"happy/{number}.jpg" for number in range(11)),
        *(f"sad/{number}.jpg" for number in range(11)),
        "sad/person 2/1.jpg",
    ]


def test_several_datasets_are_not_chosen_from(tmp_path):
    for name in ("fer", "raf"):
        class_folders(tmp_path / name / "train", CLASS_NAMES)
        class_folders(tmp_path / name / "test", CLASS_NAMES)
    text = refused(tmp_path)
    assert "several datasets" in text and str(tmp_path / "raf") in text and "--source" in text


def test_two_folders_of_one_split(tmp_path):
    for name in ("train", "val", "validation"):
        class_folders(tmp_path / name, CLASS_NAMES)
    text = refused(tmp_path)
    assert "are both the val split" in text and "rename" in text


def test_train_or_validation_alone(tmp_path):
    class_folders(tmp_path / "valid", CLASS_NAMES)
    assert "neither a train nor a test folder" in refused(tmp_path)
    (tmp_path / "valid").rename(tmp_path / "train")
    text = refused(tmp_path)
    assert "neither a validation nor a test folder" in text
    assert f"--source {tmp_path / 'train'}" in text


def test_class_folders_without_files_are_no_dataset(tmp_path):
    for name in CLASS_NAMES:
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "test" / name).mkdir(parents=True)
    assert "without a single image" in refused(tmp_path)


# -- names of classes ----------------------------------------------------------------------------


def test_other_names_in_any_case(tmp_path):
    names = ("Anger", "DISGUSTED", "fearful", "Happiness", "Neutral", "sadness", "Surprised")
    class_folders(tmp_path, names)
    counts, layout = found(tmp_path)
    assert counts == {"all": dict.fromkeys(CLASS_NAMES, 2)}
    assert layout.class_map["happiness"] == "happy" and layout.class_map["anger"] == "angry"
    assert list(layout.class_map) == sorted(layout.class_map), "the same on every run"


def test_numbers_of_fer2013_where_its_splits_say_so(tmp_path):
    for split in ("Training", "PublicTest", "PrivateTest"):
        class_folders(tmp_path / split, range(7), 1)
    labels = labels_of(find_layout(tmp_path))
    assert [labels[f"Training/{n}/0.jpg"] for n in range(7)] == list(FER2013)


def test_numbers_of_fer2013_where_its_files_say_so(tmp_path):
    for number in range(7):
        touch(tmp_path / "train" / str(number) / "Training_10118481.jpg")
        touch(tmp_path / "test" / str(number) / "PrivateTest_1.jpg")
    labels = labels_of(find_layout(tmp_path))
    assert [labels[f"test/{n}/PrivateTest_1.jpg"] for n in range(7)] == list(FER2013)


def test_numbers_from_1_are_of_raf_db(tmp_path):
    for split in ("train", "test"):
        class_folders(tmp_path / split, range(1, 8), 1)
    labels = labels_of(find_layout(tmp_path))
    assert [labels[f"train/{n}/0.jpg"] for n in range(1, 8)] == list(RAF_DB)


@pytest.mark.parametrize("numbers", [range(7), range(8), range(1, 7)])
def test_uncertain_numbers_need_a_class_map(tmp_path, numbers):
    for split in ("train", "test"):
        class_folders(tmp_path / split, numbers, 1)
    text = refused(tmp_path)
    assert str(tmp_path) in text
    assert "--class-map affectnet (" in text and "--class-map fer+ (" in text
    assert ("--class-map fer2013 (" in text) == (max(numbers) < 7)
    labels = labels_of(find_layout(tmp_path, class_map="affectnet"))
    assert [labels[f"test/{n}/0.jpg"] for n in numbers] == [AFFECTNET[n] for n in numbers]


def test_numbers_of_no_order(tmp_path):
    class_folders(tmp_path, (0, 5, 9))
    text = refused(tmp_path)
    assert "in no known order" in text and "--class-map 0=CLASS,5=CLASS,9=CLASS" in text


def test_class_map_of_pairs_and_of_names_in_order(tmp_path):
    class_folders(tmp_path, (0, 1, 2))
    pairs = labels_of(find_layout(tmp_path, class_map="0=happiness,1=bored,2="))
    assert pairs == {
        "0/0.jpg": "happy", "0/1.jpg": "happy", "1/0.jpg": "bored", "1/1.jpg": "bored",
    }  # fmt: skip
    layout = find_layout(tmp_path, class_map="0=happy,1=bored,2=")
    assert layout.left_out == {"class 2, left out by --class-map": 2}
    listed = labels_of(find_layout(tmp_path, class_map="sad,fear,Anger"))
    assert [listed[f"{n}/0.jpg"] for n in range(3)] == ["sad", "fear", "angry"]
    for flag in ("sad,fear", "sad,fear,2=angry", "raf"):
        assert f"--class-map {flag} is not an order" in refused(tmp_path, class_map=flag)
    assert "--class-map names 7" in refused(tmp_path, class_map="7=sad")


def test_unknown_names_need_a_class_map(tmp_path):
    class_folders(tmp_path, ("happy", "sad", "²"))  # a digit, of no number
    assert "unknown class ²" in refused(tmp_path)
    (tmp_path / "²").rename(tmp_path / "gloomy")
    assert "unknown class gloomy" in refused(tmp_path)
    counts, _ = found(tmp_path, class_map="gloomy=sad")
    assert counts == {"all": {"happy": 2, "sad": 4}}
    class_folders(tmp_path / "own", ("bored", "engaged"))
    counts, _ = found(tmp_path / "own", class_map="bored=bored,engaged=engaged")
    assert counts == {"all": {"bored": 2, "engaged": 2}}


def test_eight_classes_and_seven_of_them(tmp_path):
    for split in ("train", "validation", "test"):
        class_folders(tmp_path / split, [*EIGHT[:-1], "suprise"])
    counts, layout = found(tmp_path)
    assert layout.class_names == EIGHT and counts["val"] == dict.fromkeys(EIGHT, 2)
    counts, layout = found(tmp_path, classes="anger," + ",".join(CLASS_NAMES[1:]))
    assert layout.class_names == CLASS_NAMES and counts["val"] == dict.fromkeys(CLASS_NAMES, 2)
    assert layout.left_out == {"class contempt, left out by --classes": 6}
    assert "has no class bored" in refused(tmp_path, classes="happy,bored")
    assert "two classes or more" in refused(tmp_path, classes="happy")


# -- tables --------------------------------------------------------------------------------------


def write_rows(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def pixels(label, rng):
    return " ".join(map(str, striped_face(label, rng).ravel()))


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("fer2013.csv", ["emotion", "pixels", "Usage"]),
        ("icml_face_data.csv", ["emotion", " Usage", " pixels"]),
    ],
)
def test_fer2013_as_csv(tmp_path, name, header):
    usages = ["Training"] * 14 + ["PublicTest"] * 7 + ["PrivateTest"] * 7
    cells = {"emotion": range(28), "pixels": ["0 1 2 3"] * 28, "Usage": usages}
    cells["emotion"] = [row % 7 for row in range(28)]
    columns = [cells[column.strip()] for column in header]
    path = write_rows(tmp_path / "data" / name, header, zip(*columns, strict=True))
    for source in (tmp_path, path):
        counts, layout = found(source)
        assert counts == {
            "train": dict.fromkeys(CLASS_NAMES, 2),
            "val": dict.fromkeys(CLASS_NAMES, 1),
            "test": dict.fromkeys(CLASS_NAMES, 1),
        }
        labels = labels_of(layout)
        prefix = "data/" if source == tmp_path else ""
        assert [labels[f"{prefix}{name}/{row}"] for row in range(21, 28)] == list(FER2013)


def test_csv_of_pixels_without_usage_and_with_contempt(tmp_path):
    rows = [[label, "0 1 2 3"] for label in range(8)]
    path = write_rows(tmp_path / "faces.csv", ["emotion", "pixels"], rows[:7])
    assert found(path)[0] == {"all": dict.fromkeys(CLASS_NAMES, 1)}
    path = write_rows(tmp_path / "faces.csv", ["emotion", "pixels"], rows)
    text = refused(path)
    assert "--class-map ck+csv (" in text and "--class-map affectnet (" in text
    labels = labels_of(find_layout(path, class_map="ck+csv"))
    assert labels["faces.csv/7"] == "contempt" and labels["faces.csv/5"] == "surprise"


def test_damaged_csv_of_pixels(tmp_path):
    path = write_rows(tmp_path / "fer2013.csv", ["emotion", "pixels", "Usage"], [[0, "1 2"]])
    text = refused(path)
    assert "fer2013.csv, row 0: 2 columns in place of 3" in text
    write_rows(path, ["emotion", "pixels", "Usage"], [[0, "1 2 3 4", "Sometimes"]])
    assert "row 0: 'Sometimes' is not the name of a split" in refused(path)
    write_rows(path, ["emotion", "pixels", "Usage"], [])
    assert "without a single image" in refused(path)


def test_tables_side_by_side_and_beside_folders(tmp_path):
    for name in ("train.csv", "icml_face_data.csv"):
        write_rows(tmp_path / name, ["emotion", "pixels"], [[n, "0 1 2 3"] for n in range(7)])
    assert f"--source {tmp_path / 'icml_face_data.csv'}" in refused(tmp_path)
    (tmp_path / "train.csv").unlink()
    class_folders(tmp_path / "train", CLASS_NAMES, 3)
    class_folders(tmp_path / "test", CLASS_NAMES)
    text = refused(tmp_path)
    assert "--layout pixels or --layout folders" in text
    assert found(tmp_path, form="folders")[0]["train"] == dict.fromkeys(CLASS_NAMES, 3)
    assert found(tmp_path, form="pixels")[0] == {"all": dict.fromkeys(CLASS_NAMES, 1)}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_list_of_paths_and_labels(tmp_path, separator):
    lines = ["Path,Label,Split".replace(",", separator)]
    for index, name in enumerate(CLASS_NAMES):
        for split in ("train", "val", "test"):
            touch(tmp_path / "pictures" / split / f"{index}.png")
            lines.append(separator.join([f"{split}\\{index}.png", name.upper(), split]))
    (tmp_path / "labels.csv").write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    for source in (tmp_path, tmp_path / "labels.csv"):
        counts, layout = found(source)
        assert counts == dict.fromkeys(("train", "val", "test"), dict.fromkeys(CLASS_NAMES, 1))
        assert labels_of(layout)["pictures/test/3.png"] == "happy"


def test_list_without_splits_and_lists_named_as_splits(tmp_path):
    for number in range(4):
        touch(tmp_path / f"{number}.png")
    rows = [["0.png", "sad"], ["1.png", "happy"], ["2.png", "sad"]]
    write_rows(tmp_path / "train_labels.csv", ["image", "label"], rows)
    assert found(tmp_path)[0] == {"all": {"happy": 1, "sad": 2}}
    rows = [["1.png", "happy"], ["3.png", "sad"]]
    write_rows(tmp_path / "test_labels.csv", ["image", "label"], rows)
    counts, _ = found(tmp_path)
    assert counts == {"train": {"happy": 1, "sad": 2}, "test": {"happy": 1, "sad": 1}}
    write_rows(tmp_path / "more.csv", ["image", "label"], rows)
    assert "several tables of images" in refused(tmp_path)


def test_list_with_numbers_or_of_files_elsewhere(tmp_path):
    for number in range(7):
        touch(tmp_path / f"{number}.png")
    rows = [[f"{number}.png", number] for number in range(7)]
    path = write_rows(tmp_path / "list.csv", ["path", "label"], rows)
    assert "--class-map fer2013 (0 angry" in refused(path)
    assert found(path, class_map="fer2013")[0] == {"all": dict.fromkeys(CLASS_NAMES, 1)}
    path = write_rows(tmp_path / "other" / "list.csv", ["path", "label"], [["x/y.png", "sad"]])
    assert f"{path}: the images it lists are not there" in refused(path)
    path = write_rows(tmp_path / "other" / "list.csv", ["name", "score"], [["x/y.png", "1"]])
    assert "no CSV with the columns" in refused(path)
    path = write_rows(tmp_path / "list.csv", ["path", "file", "label"], [["0.png", "0.png", "sad"]])
    assert "columns path and file both fit" in refused(path)


def test_list_of_a_name_that_no_file_can_have(tmp_path):
    write_rows(tmp_path / "list.csv", ["path", "label"], [["x" * 300, "sad"]])
    text = refused(tmp_path)
    assert text.startswith("cannot read") and text.endswith("xxx: File name too long")


def test_csv_that_lists_no_image_does_not_hide_folders(tmp_path):
    for split in ("train", "test"):  # RAF-DB as on Kaggle: the lists name files without folders
        class_folders(tmp_path / split, range(1, 8))
        write_rows(tmp_path / f"{split}_labels.csv", ["image", "label"], [["a_aligned.jpg", 5]])
    assert found(tmp_path)[0]["test"] == dict.fromkeys(CLASS_NAMES, 2)


# -- datasets with label files of their own ------------------------------------------------------


def test_raf_db(tmp_path):
    lines = []
    for number, label in enumerate([1, 2, 3, 4, 5, 6, 7] * 2):
        split = "train" if number < 7 else "test"
        stem = f"{split}_{number:05}"
        lines.append(f"{stem}.jpg {label}")
        touch(tmp_path / "basic" / "Image" / "aligned" / f"{stem}_aligned.jpg")
        touch(tmp_path / "basic" / "Image" / "original" / f"{stem}.jpg")
    lines.append("train_12271.jpg 4")
    table = tmp_path / "basic" / "EmoLabel" / "list_patition_label.txt"
    table.parent.mkdir()
    table.write_text("\n".join(lines) + "\n")
    counts, layout = found(tmp_path)
    assert counts == dict.fromkeys(("train", "test"), dict.fromkeys(CLASS_NAMES, 1))
    labels = labels_of(layout)
    prefix = "basic/Image/aligned"
    assert [labels[f"{prefix}/train_{n:05}_aligned.jpg"] for n in range(7)] == list(RAF_DB)
    assert layout.left_out == {"listed, but the file is not there": 1}
    table.write_text("train_00001.jpg happy\n")
    assert "list_patition_label.txt, line 1: 'train_00001.jpg happy'" in refused(tmp_path)
    shutil.rmtree(tmp_path / "basic" / "Image" / "aligned")
    assert "unpack RAF-DB's aligned.zip" in refused(tmp_path)


def test_affectnet_with_numbered_files(tmp_path):
    for split in ("train_set", "val_set"):
        (tmp_path / split / "annotations").mkdir(parents=True)
        for number in range(10):
            touch(tmp_path / split / "images" / f"{number}.jpg")
            np.save(tmp_path / split / "annotations" / f"{number}_exp.npy", str(number))
            np.save(tmp_path / split / "annotations" / f"{number}_val.npy", "0.5")
        touch(tmp_path / split / "images" / "10.jpg")
    counts, layout = found(tmp_path)
    assert counts == dict.fromkeys(("train", "val"), dict.fromkeys(EIGHT, 1))
    labels = labels_of(layout)
    assert [labels[f"train_set/images/{n}.jpg"] for n in range(8)] == list(AFFECTNET)
    assert layout.left_out == {
        "expression 8, none": 2, "expression 9, uncertain": 2, "image without annotation": 2,
    }  # fmt: skip
    np.save(tmp_path / "val_set" / "annotations" / "0_exp.npy", "happy")
    assert "0_exp.npy does not hold a number" in refused(tmp_path)


def test_affectnet_with_tables(tmp_path):
    header = ["subDirectory_filePath", "face_x", "face_y", "face_width", "face_height"]
    header += ["facial_landmarks", "expression", "valence", "arousal"]
    for name in ("training", "validation"):
        rows = []
        for label in range(11):
            file = f"{label % 3 + 1}/{name}{label}.jpg"
            touch(tmp_path / "Manually_Annotated_Images" / file)
            rows.append([file, 10 + label, 20, 30, 40, "1;2;3", label, 0.1, 0.2])
        write_rows(tmp_path / "file_lists" / f"{name}.csv", header, rows)
    touch(tmp_path / "Manually_Annotated_Images" / "1200" / "x.jpg")  # there are 1400 such folders
    counts, layout = found(tmp_path)
    assert counts == dict.fromkeys(("train", "val"), dict.fromkeys(EIGHT, 1))
    labels = labels_of(layout)
    prefix = "Manually_Annotated_Images"
    names = [f"{prefix}/{n % 3 + 1}/training{n}.jpg" for n in range(8)]
    assert [labels[name] for name in names] == list(AFFECTNET)
    row = layout.names.tolist().index(names[5])
    assert layout.boxes[row].tolist() == [15, 20, 30, 40], "the boxes follow their images"
    assert layout.left_out["expression 10, no face"] == 2
    path = tmp_path / "file_lists" / "validation.csv"
    write_rows(path, [header[0], "expression"], [[rows[0][0], 0]])
    assert "some have the columns face_x, face_y" in refused(tmp_path)
    for number in ("x", "nan", "1e30"):
        rows[0][2] = number
        write_rows(path, header, rows)
        assert f"row 0: 10,{number},30,40 is not a face box" in refused(tmp_path)


def test_ck(tmp_path):
    for number in range(8):
        person, last = f"S{number:03}", f"{number + 2:08}"
        for frame in range(1, number + 3):
            touch(tmp_path / f"cohn-kanade-images/{person}/001/{person}_001_{frame:08}.png")
        labels = tmp_path / "Emotion" / person / "001"
        labels.mkdir(parents=True)
        (labels / f"{person}_001_{last}_emotion.txt").write_text(f"   {number}.0000000e+00\n")
    (tmp_path / "Emotion" / "S000" / "002").mkdir()
    counts, layout = found(tmp_path)
    assert counts == {"all": dict.fromkeys(EIGHT, 1)}
    labels = labels_of(layout)
    peaks = [f"cohn-kanade-images/S{n:03}/001/S{n:03}_001_{n + 2:08}.png" for n in range(8)]
    assert [labels[name] for name in peaks] == list(CK)
    assert layout.left_out == {"frame that is not the peak of a labelled sequence": 36}


def test_ck_as_folders_has_contempt_and_no_neutral(tmp_path):
    names = ("anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise")
    class_folders(tmp_path / "CK+48", names)
    counts, _ = found(tmp_path)
    expected = [name for name in EIGHT if name != "neutral"]
    assert counts == {"all": dict.fromkeys(expected, 2)}


def test_fer_plus_with_votes(tmp_path):
    """The majority is the class; contempt is one; no majority and no face are left out."""
    order = ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt")
    for split in ("FER2013Train", "FER2013Valid", "FER2013Test"):
        rows = []
        for number in range(8):
            counts = [0] * 10
            counts[number], counts[8] = 8, 2
            rows.append([f"fer{number:07}.png", "(0, 0, 48, 48)", *counts])
        rows.append(["fer0000008.png", "(0, 0, 48, 48)", 4, 4, 2, 0, 0, 0, 0, 0, 0, 0])
        rows.append(["fer0000009.png", "(0, 0, 48, 48)", 1, 0, 0, 0, 0, 0, 0, 0, 0, 9])
        for name, *_ in rows:
            touch(tmp_path / "data" / split / name)
        rows.append(["fer0000010.png", "(0, 0, 48, 48)", 9, 0, 0, 0, 0, 0, 0, 0, 1, 0])
        head, *rest = rows
        write_rows(tmp_path / "data" / split / "label.csv", head, rest)
    counts, layout = found(tmp_path)
    assert counts == dict.fromkeys(("train", "val", "test"), dict.fromkeys(EIGHT, 1))
    labels = labels_of(layout)
    names = [f"data/FER2013Valid/fer{n:07}.png" for n in range(8)]
    assert tuple(labels[name] for name in names) == order
    assert layout.left_out == {
        "without a majority": 3,
        "no face, by the raters": 3,
        "listed, but the file is not there": 3,
    }
    assert row_numbers(names).tolist() == list(range(8)), "votes are found by the names"
    (tmp_path / "data" / "FER2013Test" / "label.csv").write_text("fer0000000.png,box,1,2\n")
    assert "label.csv, row 1: fer0000000.png,box,1,2 is not a name, a box" in refused(tmp_path)


# -- no dataset ----------------------------------------------------------------------------------


def test_no_dataset(tmp_path):
    assert "is missing; get it with: python download_dataset.py" in refused(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    text = refused(tmp_path / "empty")
    assert "holds no dataset of a known form" in text and "docs/data.md" in text
    (tmp_path / "faces.zip").write_bytes(b"PK")
    assert f"--archive {tmp_path / 'faces.zip'}" in refused(tmp_path / "faces.zip")
    with tarfile.open(tmp_path / "fer2013.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "faces.zip")
    assert "fer2013.tar.gz is a tar archive; unpack" in refused(tmp_path / "fer2013.tar.gz")
    Image.new("L", (48, 48)).save(tmp_path / "face.png")
    assert "face.png is no CSV" in refused(tmp_path / "face.png")
    assert "no dataset of the form ck+" in refused(tmp_path, form="ck+")


def test_every_order_names_each_expression_once():
    for _, expressions in ORDERS.values():
        names = sorted(expressions.split())
        assert tuple(names) in (CLASS_NAMES, EIGHT)


def test_order_of_files_does_not_depend_on_the_file_system():
    names = ["2.jpg", "02.jpg", "10.jpg", "1.jpg", "a-2.jpg", "a2.jpg", "a10.jpg", "a.jpg", "0.jpg"]
    expected = [
        "0.jpg", "1.jpg", "02.jpg", "2.jpg", "10.jpg", "a2.jpg", "a10.jpg", "a-2.jpg", "a.jpg",
    ]  # fmt: skip
    for turn in range(len(names)):
        assert in_order(names[turn:] + names[:turn]) == expected
