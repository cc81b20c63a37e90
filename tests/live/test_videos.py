"""Videos whose headers lie, whose frame rate varies, that are damaged, or turned."""

import cv2
import numpy as np
import pytest
from media import everything, write_timed, write_video

from ferlab.files import UserError
from ferlab.live.sources import open_source
from ferlab.live.videos import is_missing, open_video

EVEN = np.arange(60) / 30
UNEVEN = np.cumsum([0, *([0.033] * 6 + [0.25]) * 5])


@pytest.mark.parametrize("options", [{}, {"live": "1"}])  # with and without a duration
def test_a_header_of_1000_frames_a_second(tmp_path, capsys, options):
    """Browsers record such WebM files."""
    path = write_timed(tmp_path / "v.webm", EVEN, "libvpx", rate=1000, **options)
    source = open_video(path)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "v.webm: the header states 1000 frames/s; its time stamps give 30, which is used" in said
    assert (source.rate, source.length) == (30, None if options else 60)
    times = [frame.time_s for frame in everything(source)]
    assert times == pytest.approx(EVEN, abs=1e-3)
    assert source.error is None


def test_rates_that_are_true_are_kept(tmp_path, capsys):
    assert open_video(write_video(tmp_path / "slow.avi", rate=2)).rate == 2
    assert open_video(write_video(tmp_path / "fast.avi", rate=120)).rate == 120
    assert capsys.readouterr().err == ""


def test_a_rate_that_nothing_confirms(tmp_path, capsys):
    """One frame has no intervals."""
    source = open_video(write_video(tmp_path / "v.avi", count=1, rate=500))
    assert source.rate == 30
    assert "no time stamps: 30 is used; --fps sets another" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.webm"])
def test_a_variable_frame_rate_keeps_each_time_stamp(tmp_path, name):
    codec = "libvpx" if name == "v.webm" else "libx264"
    source = open_video(write_timed(tmp_path / name, UNEVEN, codec))
    frames = everything(source)
    assert [frame.time_s for frame in frames] == pytest.approx(UNEVEN, abs=1e-3)
    assert source.error is None, "gaps are no damage"


def test_time_stamps_always_rise(tmp_path):
    """A raw stream has none; the frame rate stands in for them."""
    source = open_video(write_timed(tmp_path / "v.h264", EVEN))
    times = [frame.time_s for frame in everything(source)]
    assert len(times) == 60 and times == pytest.approx([n / source.rate for n in range(60)])


def test_a_given_rate_replaces_the_time_stamps(tmp_path):
    source = open_video(write_timed(tmp_path / "v.mp4", UNEVEN), fps=10)
    times = [frame.time_s for frame in everything(source)]
    assert times == pytest.approx([n / 10 for n in range(len(UNEVEN))])
    assert source.rate == 10 and source.error is None


def damaged(path, start, end):
    """Overwrites a part of a file, given as fractions of its size, with zeros."""
    content = bytearray(path.read_bytes())
    start, end = int(start * len(content)), int(end * len(content))
    content[start:end] = bytes(end - start)
    path.write_bytes(content)


def noisy_video(path, count=90, size=(160, 120)):
    """A video of which every part of the file holds frames, not the index alone."""
    code = {".avi": "MJPG", ".mp4": "mp4v", ".mkv": "mp4v"}[path.suffix]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 30, size)
    rng = np.random.default_rng(0)
    for _ in range(count):
        writer.write(rng.integers(0, 256, (*size[::-1], 3), np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("name", ["v.avi", "v.mp4", "v.mkv"])
def test_a_video_damaged_in_its_middle(tmp_path, name):
    whole = everything(open_video(noisy_video(tmp_path / name)))
    assert len(whole) == 90
    damaged(tmp_path / name, 0.3, 0.6)
    source = open_video(tmp_path / name)
    frames = everything(source)
    assert len(frames) < 85
    if name != "v.avi":  # AVI has no time stamps
        assert frames[-1].time_s > 2.9
    assert len(frames) > 40, "frames behind the damage are read"
    expected = f"{name} is damaged or cut short: {len(frames)} of about 90 frames could be read"
    assert expected in str(source.error)


@pytest.mark.parametrize("name", ["v.avi", "v.mkv"])
def test_a_video_cut_short(tmp_path, name):
    path = noisy_video(tmp_path / name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    source = open_video(path)
    frames = everything(source)
    assert 30 < len(frames) < 60
    expected = f"{name} is damaged or cut short: {len(frames)} of about 90 frames could be read"
    assert expected in str(source.error)


def test_a_video_without_its_index(tmp_path):
    path = noisy_video(tmp_path / "v.mp4", 10)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"v\.mp4 is not a video .* copy or download it again"):
        open_video(path)


@pytest.mark.parametrize(
    ("times", "seconds", "length", "failures", "missing"),
    [
        (EVEN, 2.0, 60, 0, False),
        (EVEN[:45], 2.0, 60, 0, True),  # its end
        (np.delete(EVEN, slice(10, 40)), 2.0, 60, 0, True),  # its middle
        (EVEN[:57], 2.07, 60, 0, False),  # a trimmed MP4: some frames are not shown
        (UNEVEN, UNEVEN[-1] + 0.033, 77, 0, False),  # the count is a guess
        (np.array([0.0]), 2.0, 60, 0, True),
        (np.delete(EVEN, [20, 21]), 2.0, 60, 2, True),  # reads that failed are damage
    ],
)
def test_what_counts_as_missing(times, seconds, length, failures, missing):
    assert is_missing(times, seconds, length, failures) == missing


def test_a_phone_video_is_upright(tmp_path):
    """Phones store portrait videos lying, with a rotation in the track header."""
    path = write_video(tmp_path / "v.mp4", code="mp4v")
    content = bytearray(path.read_bytes())
    plain = np.array([1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30], ">i4").tobytes()
    turned = np.array([0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30], ">i4").tobytes()
    place = content.index(plain, content.index(b"tkhd"))
    content[place : place + len(plain)] = turned
    path.write_bytes(content)
    assert {frame.image.shape for frame in everything(open_video(path))} == {(64, 48, 3)}


def test_a_video_that_is_named_like_an_image(tmp_path):
    write_video(tmp_path / "v.avi").rename(tmp_path / "v.jpg")
    source = open_source(str(tmp_path / "v.jpg"))
    assert not source.stills and len(everything(source)) == 25
    assert source.rate == 12.5
