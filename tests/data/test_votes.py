"""FER+'s votes: the majority by the rule of its paper, and tables that are refused."""

import zipfile

import numpy as np
import pytest

from ferlab.data.splits import CLASS_NAMES
from ferlab.data.votes import COLUMNS, read_table, require_aligned, row_numbers, summarise
from ferlab.files import UserError


def counts(**of):
    return np.array([[of.get(name, 0) for name in COLUMNS]])


@pytest.mark.parametrize(
    ("cast", "majority", "agreement"),
    [
        ({"happiness": 9, "surprise": 1}, "happy", 9),
        # single votes are dropped: anger has 3 of the 3 that are left
        (dict.fromkeys(COLUMNS[:4], 1) | {"anger": 3, "disgust": 1, "fear": 1}, "angry", 3),
        ({"neutral": 5, "happiness": 2, "sadness": 2, "anger": 1}, "neutral", 5),  # 5 of 9
        ({"neutral": 4, "happiness": 2, "sadness": 2}, None, 0),  # 4 of 8: just half
        ({"neutral": 5, "sadness": 5}, None, 0),
        ({"fear": 3, "surprise": 3, "sadness": 4}, None, 0),
        (dict.fromkeys(COLUMNS, 1), None, 0),
        ({"contempt": 6, "neutral": 4}, None, 6),
        ({"unknown": 6, "happiness": 4}, None, 0),
        ({"NF": 10}, None, 0),
    ],
)
def test_majority_is_more_than_half_of_the_votes_that_are_not_single(cast, majority, agreement):
    votes = summarise(counts(**cast))
    assert votes.majority.tolist() == [-1 if majority is None else CLASS_NAMES.index(majority)]
    assert votes.agreement.tolist() == [agreement]
    assert votes.no_face.tolist() == [cast.get("NF", 0) > 5]


def test_votes_are_fractions_of_the_votes_for_the_classes():
    cast = [
        counts(anger=1, disgust=2, fear=3, happiness=1, neutral=1, sadness=1, surprise=1),
        counts(neutral=3, happiness=1, contempt=4, unknown=2),  # 4 votes for the seven classes
        counts(NF=9, unknown=1),
    ]
    votes = summarise(np.concatenate(cast)).votes
    assert votes.dtype == np.float32
    expected = [[0.1, 0.2, 0.3, 0.1, 0.1, 0.1, 0.1], [0, 0, 0, 0.25, 0.75, 0, 0], [0] * 7]
    np.testing.assert_allclose(votes, expected, atol=1e-7)


def test_table_is_read_as_it_is(votes_table):
    table = read_table(votes_table)
    assert table.shape == (35_887, 10) and table.dtype == np.int64
    # row 10 is of class 3: seven votes for happiness, two for neutral, one unknown
    assert table[10].tolist() == [2, 7, 0, 0, 0, 0, 0, 0, 1, 0]


GOOD = "Training,fer0000000.png,0,0,0,0,7,2,0,0,1,0"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[: len(lines) // 2], "has 17,943 rows, not 35,887"),
        (lambda lines: [*lines, GOOD], "has 35,888 rows, not 35,887"),
        (lambda lines: [*lines[:-1], lines[-1][:-6]], "row 35886"),
        (lambda lines: [lines[0].replace("NF", "face"), *lines[1:]], "its columns are not Usage"),
        (lambda lines: ["emotion,pixels,Usage", *lines[1:]], "its columns are not Usage"),
        (lambda lines: lines[1:], "its columns are not Usage"),
        (lambda lines: [lines[0], GOOD.replace("7", "-7"), *lines[2:]], "row 0"),
        (lambda lines: [lines[0], GOOD.replace("7", "many"), *lines[2:]], "row 0"),
        (lambda lines: [lines[0], GOOD.replace("7", "0.7"), *lines[2:]], "row 0"),
        (lambda lines: [lines[0], GOOD.replace("7", ""), *lines[2:]], "row 0"),
        (lambda lines: [lines[0], GOOD.replace("7", "70"), *lines[2:]], "row 0"),
        (lambda lines: [lines[0], GOOD + ",1", *lines[2:]], "row 0"),
        (lambda lines: [], "not a CSV file"),
    ],
)
def test_wrong_table_is_refused_with_its_name(votes_table, tmp_path, change, message):
    path = tmp_path / "table.csv"
    path.write_text("\n".join(change(votes_table.read_text().splitlines())))
    with pytest.raises(UserError) as error:
        read_table(path)
    text = str(error.value)
    assert message in text and str(path) in text and "\n" not in text
    assert "python download_dataset.py" in text and "--no-votes" in text


def test_what_is_no_text_is_refused(tmp_path):
    path = tmp_path / "table.csv"
    with pytest.raises(UserError, match=r"table\.csv is missing"):
        read_table(path)
    for content in (b"\xff\xfe\x00\x01", b"Usage\x00" * 99):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"table\.csv is not FER\+'s table"):
            read_table(path)


def test_images_are_found_by_the_number_of_their_file():
    assert row_numbers(["train/sad/0.jpg", "validation/35886.png"]).tolist() == [0, 35886]
    for name in ("train/sad/im0.jpg", "train/sad/35887.jpg", "train/sad/-1.jpg"):
        with pytest.raises(UserError, match="not a row of fer2013.csv, 0 to 35886.*--no-votes"):
            row_numbers(["train/sad/0.jpg", name])


def test_table_of_other_rows_is_refused(votes_table):
    table, rows = read_table(votes_table), np.arange(3000)
    labels = np.where(rows % 3 == 0, (rows + 2) % 7, rows % 7)  # a third contradicts the raters
    assert require_aligned(summarise(table[rows]), labels, votes_table) == pytest.approx(2 / 3)
    with pytest.raises(UserError) as error:
        require_aligned(summarise(table[rows + 1]), labels, votes_table)
    assert f"{votes_table} is not of these images" in str(error.value)
    undecided = summarise(np.repeat(counts(fear=5, surprise=5), 4, axis=0))
    with pytest.raises(UserError, match="agree on 0%"):
        require_aligned(undecided, np.zeros(4, int), votes_table)


def test_real_table_agrees_with_the_real_labels_but_not_when_shifted(real_archive, real_votes):
    with zipfile.ZipFile(real_archive) as archive:
        files = [name for name in archive.namelist() if name.endswith(".jpg")]
    labels = np.array([CLASS_NAMES.index(name.split("/")[-2]) for name in files])
    table, rows = read_table(real_votes), row_numbers(files)
    assert 0.67 < require_aligned(summarise(table[rows]), labels, real_votes) < 0.69
    for shift in (-1, 1):
        shifted = summarise(np.roll(table, shift, axis=0)[rows])
        decided = shifted.majority >= 0
        assert (shifted.majority == labels)[decided].mean() < 0.25
        with pytest.raises(UserError, match="is not of these images"):
            require_aligned(shifted, labels, real_votes)
