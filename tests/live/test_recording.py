"""Output files of a live run."""

import csv
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from ferlab.data.splits import CLASS_NAMES
from ferlab.files import UserError
from ferlab.live.recording import CODECS, FaceLog, VideoFile, write_image
from ferlab.live.tracking import Face


def frame(level, shape=(48, 64, 3)):
    return np.full(shape, level, np.uint8)


def frames_of(path):
    video, levels = cv2.VideoCapture(str(path)), []
    while True:
        there, frame = video.read()
        if not there:
            return levels, video.get(cv2.CAP_PROP_FPS)
        levels.append(float(frame.mean()))


@pytest.mark.parametrize("ending", CODECS)
def test_every_kind_of_video_plays(tmp_path, ending):
    video = VideoFile(tmp_path / f"v{ending}", 25.0, real_time=False)
    for number in range(10):
        video.write(frame(20 * number), number / 25)
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
        video.write(frame(level), time_s)
    video.close()
    levels, _ = frames_of(tmp_path / "v.avi")
    assert levels == pytest.approx([0, 50, 100, 100, 100, 200], abs=6)


def test_a_pause_is_skipped(tmp_path):
    video = VideoFile(tmp_path / "v.avi", 10.0, real_time=True)
    for time_s in (0.0, 0.1, 60.0, 60.1):
        video.write(frame(90), time_s)
    video.close()
    assert len(frames_of(tmp_path / "v.avi")[0]) == 4


def test_frames_that_change_their_size(tmp_path):
    video = VideoFile(tmp_path / "v.avi", 10.0, real_time=False)
    video.write(frame(10), 0.0)
    video.write(frame(200, (30, 90, 3)), 0.1)
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
        write_image(tmp_path / "image.xyz", frame(1))


@pytest.mark.parametrize("ending", CODECS)
def test_an_incomplete_video_is_reported(tmp_path, ending):
    video = VideoFile(tmp_path / f"v{ending}", 25.0, real_time=False)
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
        log.write(0, 0.0, face, "happy", 0.5)
    with pytest.raises(UserError, match=r"cannot write .*faces\.csv: No space left"):
        log.close()


def test_the_log_is_on_disk_at_once(tmp_path):
    log = FaceLog(tmp_path / "faces.csv", CLASS_NAMES)
    probs = np.array([0.1, 0.05, 0.05, 0.5, 0.1, 0.1, 0.1])
    log.write(12, 0.4, Face(3, np.array([1.4, 2.6, 30, 30]), 0.4, 0.4, probs=probs), "happy", 0.5)
    (row,) = csv.DictReader((tmp_path / "faces.csv").open())
    assert row == {
        "frame": "12", "time_s": "0.400", "face_id": "3", "x": "1", "y": "3", "w": "30", "h": "30",
        "expression": "happy", "confidence": "0.5000", "angry": "0.1000", "disgust": "0.0500",
        "fear": "0.0500", "happy": "0.5000", "neutral": "0.1000", "sad": "0.1000",
        "surprise": "0.1000",
    }  # fmt: skip
    log.close()


def test_images(tmp_path):
    for ending in (".png", ".jpg", ".webp"):
        write_image(tmp_path / "new" / f"p{ending}", frame(77))
        assert cv2.imread(str(tmp_path / "new" / f"p{ending}")).mean() == pytest.approx(77, abs=2)
