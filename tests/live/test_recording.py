"""Output files of a live run."""

import csv
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from media import frames_of, picture

from ferlab.data.splits import CLASS_NAMES
from ferlab.files import UserError
from ferlab.live import encoders
from ferlab.live.encoders import SUFFIXES, choose_codec, nearest_rate
from ferlab.live.frames import make_frame
from ferlab.live.recording import FaceLog, VideoFile, write_image
from ferlab.live.tracking import Face

KINDS = [(codec, ending) for codec, endings in SUFFIXES.items() for ending in endings]


def needs(codec):
    if codec not in encoders.FOURCC:
        pytest.importorskip("av")


@pytest.mark.parametrize(("codec", "ending"), KINDS)
def test_every_kind_of_video_plays(tmp_path, codec, ending):
    needs(codec)
    video = VideoFile(tmp_path / f"v{ending}", 25.0, real_time=False, codec=codec)
    for number in range(10):
        video.write(picture(20 * number), number / 25)
        assert not (tmp_path / f"v{ending}").exists(), "it appears when it is whole"
    video.close()
    levels, rate = frames_of(tmp_path / f"v{ending}")
    assert levels == pytest.approx([20 * n for n in range(10)], abs=6)
    assert rate == pytest.approx(25)
    assert [path.name for path in tmp_path.iterdir()] == [f"v{ending}"]


def test_a_live_video_plays_in_real_time(tmp_path):
    """Late frames are repeated, early ones dropped."""
    video = VideoFile(tmp_path / "v.avi", 10.0, real_time=True)
    for time_s, level in ((5.0, 0), (5.1, 50), (5.4, 100), (5.41, 150), (5.5, 200)):
        video.write(picture(level), time_s)
    video.close()
    levels, _ = frames_of(tmp_path / "v.avi")
    assert levels == pytest.approx([0, 50, 100, 100, 100, 200], abs=6)


def test_a_pause_is_skipped(tmp_path):
    video = VideoFile(tmp_path / "v.avi", 10.0, real_time=True)
    for time_s in (0.0, 0.1, 60.0, 60.1):
        video.write(picture(90), time_s)
    video.close()
    assert len(frames_of(tmp_path / "v.avi")[0]) == 4


def test_a_file_of_variable_frame_rate_keeps_its_times(tmp_path):
    """Frames are repeated in gaps and none is dropped."""
    video = VideoFile(tmp_path / "v.avi", 10.0, real_time=False)
    for time_s, level in ((0.0, 0), (0.4, 60), (0.41, 120), (0.42, 180), (1.0, 240), (9e9, 120)):
        video.write(picture(level), time_s)
    video.close()
    levels, _ = frames_of(tmp_path / "v.avi")
    expected = [0, 60, 60, 60, 60, 120, 180, 240, 240, 240, 240, 120]
    assert len(levels) == len(expected), "and a broken time stamp fills no disk"
    assert sorted(levels) == pytest.approx(sorted(expected), abs=6)


@pytest.mark.parametrize(
    ("rate", "nearest"),
    [(66.667, 66.67), (30.0, 30.0), (59.94, 59.94), (29.97003, 29.97), (655.36, 655.4),
     (1e-5, 0.01), (1e9, 1000.0)],
)  # fmt: skip
def test_rates_that_mpeg_4_can_state(tmp_path, capsys, rate, nearest):
    assert nearest_rate(rate, "mp4v") == pytest.approx(nearest)
    video = VideoFile(tmp_path / "v.mp4", rate, real_time=False, codec="mp4v")
    for number in range(3):
        video.write(picture(80), number / rate)
    video.close()
    assert frames_of(tmp_path / "v.mp4")[1] == pytest.approx(nearest, rel=1e-3)
    said = capsys.readouterr().err
    assert ("nearest rate of mp4v" in said) == (abs(nearest - rate) > 1e-3)


@pytest.mark.parametrize("codec", SUFFIXES)
def test_odd_sizes_and_rates(tmp_path, codec):
    needs(codec)
    path = tmp_path / f"v{SUFFIXES[codec][0]}"
    video = VideoFile(path, 66.667, real_time=False, codec=codec)
    for number in range(5):
        video.write(picture(100, (49, 65, 3)), number / 66.667)
    video.close()
    levels, rate = frames_of(path)
    assert len(levels) == 5 and rate == pytest.approx(66.667, rel=2e-3)


def test_the_codec_of_a_name(monkeypatch):
    pytest.importorskip("av")
    chosen = {
        name: choose_codec(Path(name), None) for name in ("a.mp4", "a.MKV", "a.webm", "a.avi")
    }
    assert chosen == {"a.mp4": "h264", "a.MKV": "h264", "a.webm": "vp9", "a.avi": "mjpg"}
    assert choose_codec(Path("a.mp4"), "mp4v") == "mp4v"
    with pytest.raises(UserError, match=r"a video with --codec vp9 ends in \.webm, \.mkv"):
        choose_codec(Path("a.mp4"), "vp9")


def test_without_pyav(monkeypatch):
    monkeypatch.setattr(encoders.importlib.util, "find_spec", lambda name: None)
    assert choose_codec(Path("a.mp4"), None) == "mp4v"
    for path, codec in (("a.webm", None), ("a.mp4", "h264")):
        with pytest.raises(UserError, match="needs PyAV; run: pip install av"):
            choose_codec(Path(path), codec)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_full_disk_ends_an_encoded_video():
    pytest.importorskip("av")
    writer = encoders.AvWriter(Path("/dev/full"), "vp9", 25.0, (64, 48), Path("v.webm"), "matroska")
    with pytest.raises(UserError, match=r"cannot write v\.webm: No space left on device"):
        for number in range(50):
            writer.write(picture(number))
        writer.release()


def test_frames_that_change_their_size(tmp_path):
    video = VideoFile(tmp_path / "v.avi", 10.0, real_time=False)
    video.write(picture(10), 0.0)
    video.write(picture(200, (30, 90, 3)), 0.1)
    video.close()
    assert frames_of(tmp_path / "v.avi")[0] == pytest.approx([10, 200], abs=6)


def test_without_frames_no_video_is_written(tmp_path):
    VideoFile(tmp_path / "v.mp4", 10.0, real_time=False).close()
    assert not list(tmp_path.iterdir())


def test_faults(tmp_path):
    with pytest.raises(UserError, match=r"the name of a video ends in \.mp4"):
        VideoFile(tmp_path / "v.xyz", 30.0, real_time=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to folder"):
        VideoFile(tmp_path / "file" / "v.mp4", 30.0, real_time=False)
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(UserError, match=r"folder\.mp4 is a folder; name a video file"):
        VideoFile(tmp_path / "folder.mp4", 30.0, real_time=False)
    with pytest.raises(UserError, match="cannot write"):
        FaceLog(tmp_path / "file" / "faces.csv", CLASS_NAMES)
    with pytest.raises(UserError, match=r"the name of an image ends in \.png"):
        write_image(tmp_path / "image.xyz", picture(1))


@pytest.mark.parametrize(("codec", "ending"), KINDS)
def test_an_incomplete_video_is_reported(tmp_path, codec, ending):
    needs(codec)
    video = VideoFile(tmp_path / f"v{ending}", 25.0, real_time=False, codec=codec)
    for number in range(50):
        video.write(np.random.default_rng(number).integers(0, 255, (48, 64, 3), np.uint8), 0.0)
    before = video.temporary.stat().st_size
    release = video.writer.release

    class FullDisk:  # takes what was on disk before the end was written
        def release(self):
            release()
            os.truncate(video.temporary, before)

    video.writer = FullDisk()
    with pytest.raises(
        UserError, match=f"v{ending} is incomplete, probably because the disk is full"
    ):
        video.close()
    assert [path.name for path in tmp_path.iterdir()] == [video.temporary.name]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_full_disk_ends_the_log(tmp_path):
    with pytest.raises(UserError, match="cannot write /dev/full: No space left on device"):
        FaceLog(Path("/dev/full"), CLASS_NAMES)
    log = FaceLog(tmp_path / "faces.csv", CLASS_NAMES)
    log.file.close()
    log.file = open("/dev/full", "w", buffering=1)  # noqa: SIM115
    log.rows = csv.writer(log.file)
    face = Face(3, np.array([1.4, 2.6, 30, 30]), 0.4, 0.4, probs=np.full(7, 1 / 7))
    with pytest.raises(UserError, match=r"cannot write .*faces\.csv: No space left"):
        log.write(make_frame(picture(1), 0, 0.0), face, "happy", 0.5)
    with pytest.raises(UserError, match=r"cannot write .*faces\.csv: No space left"):
        log.close()


def test_the_log_is_on_disk_at_once(tmp_path):
    log = FaceLog(tmp_path / "faces.csv", CLASS_NAMES)
    probs = np.array([0.1, 0.05, 0.05, 0.5, 0.1, 0.1, 0.1])
    face = Face(3, np.array([1.4, 2.6, 30, 30]), 0.4, 0.4, probs=probs)
    log.write(make_frame(picture(1), 12, 0.4), face, "happy", 0.5)
    (row,) = csv.DictReader((tmp_path / "faces.csv").open())
    assert row == {
        "frame": "12", "time_s": "0.400", "face_id": "3", "x": "1", "y": "3", "w": "30", "h": "30",
        "expression": "happy", "confidence": "0.5000", "angry": "0.1000", "disgust": "0.0500",
        "fear": "0.0500", "happy": "0.5000", "neutral": "0.1000", "sad": "0.1000",
        "surprise": "0.1000",
    }  # fmt: skip
    log.close()


def test_the_log_of_images_names_their_files(tmp_path):
    name = os.fsdecode(b"\xff, a.png")  # no UTF-8
    log = FaceLog(tmp_path / "faces.csv", CLASS_NAMES, stills=True)
    face = Face(1, np.array([0, 0, 30, 30]), 0.0, 0.0, probs=np.full(7, 1 / 7))
    log.write(make_frame(picture(1), 0, 0.0, name), face, "unsure", 1 / 7)
    log.close()
    with (tmp_path / "faces.csv").open(encoding="utf-8", errors="surrogateescape") as file:
        (row,) = csv.DictReader(file)
    assert row["file"] == name and row["frame"] == "0"


def test_images(tmp_path):
    for ending in (".png", ".jpg", ".webp"):
        write_image(tmp_path / "new" / f"p{ending}", picture(77))
        assert cv2.imread(str(tmp_path / "new" / f"p{ending}")).mean() == pytest.approx(77, abs=2)
