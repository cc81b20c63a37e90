"""CSV files given to the benchmarks: one line names what is wrong with them."""

import numpy as np
import pytest

from benchmarks import crop, live
from conftest import refused


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "cannot read --truth"),
        (b"\xff\xfe\x00", "is not a CSV file"),
        (b"frame,count\n1,2\n", "has no column first, last, faces"),
        (b"", "has no column first, last, faces"),
        (b"\xef\xbb\xbffirst,last,faces\n", "has no rows"),
        (b"first,last,faces\n0,9\n", "line 2: has fewer values than columns"),
        (b"first,last,faces\n0,9,1\n10,x,1\n", "line 3: invalid literal"),
        (b"first,last,faces\n9,0,1\n", "line 2: must have 0 <= first <= last"),
    ],
)
def test_a_bad_truth_file(tmp_path, capsys, content, part):
    path = tmp_path / "truth.csv"
    if content is not None:
        path.write_bytes(content)
    assert part in refused(capsys, live, "--truth", path)


def test_a_truth_file(tmp_path):
    path = tmp_path / "truth.csv"
    path.write_text("first,last,faces\n0,1,2\n3,9,1\n")
    assert live.faces_per_frame(live.read_truth(path), 5).tolist() == [2, 2, 0, 1, 1]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("name,label\na.png,happy\n", "has no column file, expression"),
        ("file,expression\na.png,happy\n", "line 2: OpenCV cannot read a.png"),
        ("file,expression\nb.png,joyful\n", "line 2: expression 'joyful' is not one of"),
    ],
)
def test_a_bad_file_of_labelled_images(tmp_path, capsys, content, part):
    (tmp_path / "labels.csv").write_text(content)
    crop.cv2.imwrite(str(tmp_path / "b.png"), np.zeros((9, 9, 3), np.uint8))
    assert part in refused(capsys, crop, "--images", tmp_path / "labels.csv")
