"""The live program from end to end: on the drawn clip, on real media, with bad input."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
import types

import cv2
import numpy as np
import pytest
import torch
from media import film, frames_of, rows_of
from test_sources import FakeCamera

import live_inference
from advanced_network import CNN
from conftest import ROOT, assert_one_line_error, drawn_frame, refused, run_script
from ferlab.constants import CLASS_NAMES
from ferlab.data.preprocessing import preprocess
from ferlab.evaluation.explanations import cams, correlation
from ferlab.live import detection, sources, streams
from ferlab.live import weights as default
from ferlab.live.app import LiveOptions, LiveRun
from ferlab.live.classifier import (
    Classifier,
    PackedConvolution,
    as_input,
    with_folded_norms,
)
from ferlab.live.frames import make_frame
from ferlab.sample.dataset import sample_face, write_sample_clip
from ferlab.training.weights import save_model

FACES, BATCH, EPOCHS = 1400, 32, 6  # of the network that the tests use
MEDIA = ROOT.parent / "shared" / "media"


@pytest.fixture(scope="module")
def media():
    """Real faces and clips; skips where they are not available."""
    if not MEDIA.is_dir():
        pytest.skip("the real media are not on this machine")
    return MEDIA


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A folder with the drawn clip, its labels, and a small CNN trained on other drawn people."""
    folder = tmp_path_factory.mktemp("sample")
    write_sample_clip(folder)
    rng, classes = np.random.default_rng(0), len(CLASS_NAMES)
    labels = torch.arange(FACES) % classes
    faces = [sample_face(CLASS_NAMES[label], number, rng) for number, label in enumerate(labels)]
    images = preprocess(torch.from_numpy(np.stack(faces))[:, None])
    torch.manual_seed(0)
    config = {"classes": classes, "widths": [8, 16, 32, 64], "blocks": 1}
    model = CNN(**config).to(memory_format=torch.channels_last)
    steps = EPOCHS * (FACES // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.005)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.005, steps)
    for step in range(steps):
        if step % (FACES // BATCH) == 0:
            order = torch.randperm(FACES).split(BATCH)
        rows = order[step % (FACES // BATCH)]
        batch = images[rows].flip(-1) if step % 2 else images[rows]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(batch), labels[rows]).backward()
        optimizer.step()
        schedule.step()
    save_model(folder / "advanced_model.pth", "advanced", model, config, CLASS_NAMES, {})
    return folder


@pytest.fixture
def weights(sample):
    return sample / "advanced_model.pth"


# -- the drawn clip ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip_run(sample, tmp_path_factory):
    """The script's output on the drawn clip."""
    out = tmp_path_factory.mktemp("out")
    result = run_script(
        "live_inference.py", "--source", sample / "clip.mp4", "--no-window",
        "--weights", sample / "advanced_model.pth",
        "--output", out / "annotated.mp4", "--log", out / "faces.csv",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return out, result


def test_expressions_of_the_clip_are_recognised(sample, clip_run):
    truth = {row["frame"]: row for row in rows_of(sample / "clip.csv")}
    rows = rows_of(clip_run[0] / "faces.csv")
    found = {row["frame"] for row in rows}
    assert len(found) >= 0.95 * len(truth)
    correct = [row["expression"] == truth[row["frame"]]["expression"] for row in rows]
    assert np.mean(correct) > 0.7
    assert {row["expression"] for row in rows} >= set(CLASS_NAMES)


def test_the_log_of_the_clip(sample, clip_run):
    rows = rows_of(clip_run[0] / "faces.csv")
    assert {row["face_id"] for row in rows} == {"1"}, "one person, one id"
    truth = {row["frame"]: row for row in rows_of(sample / "clip.csv")}
    for row in rows:
        probs = [float(row[name]) for name in CLASS_NAMES]
        assert sum(probs) == pytest.approx(1, abs=1e-3)
        assert float(row["confidence"]) == pytest.approx(max(probs), abs=1e-4)
        assert float(row["time_s"]) == pytest.approx(int(row["frame"]) / 30, abs=1e-3)
        true_x = int(truth[row["frame"]]["x"])
        assert abs(int(row["x"]) - true_x) < 0.35 * int(row["w"])


def test_the_video_of_the_clip(sample, clip_run):
    levels, rate = frames_of(clip_run[0] / "annotated.mp4")
    assert rate == 30 and len(levels) == len(rows_of(sample / "clip.csv"))
    source = cv2.VideoCapture(str(sample / "clip.mp4"))
    drawn = cv2.VideoCapture(str(clip_run[0] / "annotated.mp4"))
    for _ in range(30):
        before, after = source.read()[1], drawn.read()[1]
    assert np.abs(before.astype(int) - after).max() > 100, "box and label are drawn"


def test_the_summary_of_the_clip(clip_run):
    text = clip_run[1].stdout
    for part in (
        "364 frames",
        "frames/s",
        "seconds of each expression:",
        "milliseconds per frame:",
    ):
        assert part in text
    for stage in ("capture", "detection", "classification", "drawing"):
        assert stage in text
    assert "frame" in clip_run[1].stderr, "a progress bar"


def test_a_file_gives_the_same_faces_on_every_run(clip_run, sample, weights, tmp_path):
    log = tmp_path / "again.csv"
    args = ["--source", sample / "clip.mp4", "--weights", weights, "--no-window", "--log", log]
    assert live_inference.main([*map(str, args), "--quiet"]) == 0
    assert log.read_text() == (clip_run[0] / "faces.csv").read_text()


def test_max_frames_and_min_confidence(sample, weights, tmp_path, capsys):
    log = tmp_path / "faces.csv"
    args = ["--source", sample / "clip.mp4", "--weights", weights, "--no-window", "--log", log]
    limits = ["--max-frames", "20", "--min-confidence", "0.999"]
    assert live_inference.main([*map(str, args), *limits]) == 0
    rows = rows_of(log)
    assert {row["expression"] for row in rows} == {"unsure"}
    assert max(int(row["frame"]) for row in rows) == 19
    assert "20 frames" in capsys.readouterr().out


def test_the_whole_network_and_the_fast_one_agree(weights):
    """Folded, packed and in bfloat16, it predicts what the plain network predicts."""
    classifier = Classifier(weights)
    content = torch.load(weights, weights_only=True)
    model = CNN(**content["config"])
    model.load_state_dict(content["state_dict"])
    rng = np.random.default_rng(0)
    faces = [rng.integers(0, 255, (side, side, 3), np.uint8) for side in (48, 90, 200)]
    with torch.inference_mode():
        logits = model.eval()(torch.stack([as_input(face) for face in faces]))
    expected = (logits / content["temperature"]).softmax(1).numpy()
    assert np.abs(classifier(faces) - expected).max() < 0.03
    inputs, classes = torch.stack([as_input(face) for face in faces]), [3, 0, 5]
    maps = torch.from_numpy(classifier.explain(faces, classes))
    assert maps.shape == (3, 48, 48) and maps.dtype == torch.float32
    assert correlation(maps, cams(model, inputs, torch.tensor(classes))) > 0.98
    assert classifier([]).shape == (0, 7)
    packed = [m for m in classifier.model.modules() if isinstance(m, PackedConvolution)]
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(packed) == len(convolutions) or not torch.backends.mkldnn.is_available()
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in classifier.model.modules())


def test_norms_are_folded_only_where_that_changes_nothing():
    class NormLast(torch.nn.Module):
        """Defines the norm behind the convolution, and uses it after a ReLU."""

        def __init__(self):
            super().__init__()
            self.conv, self.norm = torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4)
            torch.nn.init.uniform_(self.norm.bias, 1, 2)

        def forward(self, images):
            return self.norm(self.conv(images).relu())

    last = NormLast().eval()
    assert with_folded_norms(last) is last
    plain = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4)).eval()
    folded = with_folded_norms(plain)
    assert isinstance(folded[1], torch.nn.Identity) and isinstance(plain[1], torch.nn.BatchNorm2d)


def test_a_torch_without_the_packing_operators(weights, monkeypatch):
    def missing(self, convolution, input_shape):
        raise AttributeError("no such operator")

    rng = np.random.default_rng(0)
    face = rng.integers(0, 255, (90, 90, 3), np.uint8)
    expected = Classifier(weights)([face])
    monkeypatch.setattr(PackedConvolution, "__init__", missing)
    assert np.abs(Classifier(weights)([face]) - expected).max() < 0.02


# -- images --------------------------------------------------------------------------------------


def test_an_image(weights, tmp_path, capsys):
    frame, boxes = drawn_frame([(180, 200, 70), (460, 260, 90)])
    cv2.imwrite(str(tmp_path / "two.png"), frame)
    args = ["--source", tmp_path / "two.png", "--weights", weights, "--no-window"]
    log = tmp_path / "log" / "faces.csv"
    assert live_inference.main([*map(str, args), "--log", str(log)]) == 0
    assert len(rows_of(log)) == len(boxes) == 2
    assert [path.name for path in log.parent.iterdir()] == ["faces.csv"]
    assert "two.png: face 2 (" in capsys.readouterr().out
    assert live_inference.main([*map(str, args), "--output", str(tmp_path / "out.jpg")]) == 0
    assert cv2.imread(str(tmp_path / "out.jpg")).shape == frame.shape


def test_a_folder_of_images(weights, tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), drawn_frame([(320, 240, 90)])[0])
    for name in ("b.jpg", "b.png"):
        cv2.imwrite(str(folder / name), np.full((200, 200, 3), 90, np.uint8))
    (tmp_path / "there.already").mkdir()
    for output in (tmp_path / "new", tmp_path / "there.already"):
        args = ["--source", folder, "--weights", weights, "--no-window", "--output", output]
        args += ["--log", tmp_path / "faces.csv"]
        assert live_inference.main([str(arg) for arg in args]) == 0
        names = sorted(path.name for path in output.iterdir())
        assert names == ["a_annotated.png", "b.png_annotated.png", "b_annotated.png"]
        (row,) = rows_of(tmp_path / "faces.csv")
        assert row["file"] == str(folder / "a.png")
    assert "b.png: no face" in capsys.readouterr().out


def test_a_log_is_a_csv(weights, tmp_path, capsys):
    """A script named by mistake, say, is not overwritten."""
    script = tmp_path / "softmax.py"
    script.write_text("import torch")
    args = ["--source", "sample", "--weights", weights, "--no-window", "--log", script]
    assert live_inference.main([*map(str, args)]) == 1
    assert "softmax.py: the name must end in .csv" in capsys.readouterr().err
    assert script.read_text() == "import torch"


def test_explained_images(weights, tmp_path):
    frame, boxes = drawn_frame([(180, 200, 70), (460, 260, 90)])
    cv2.imwrite(str(tmp_path / "two.png"), frame)
    args = ["--source", tmp_path / "two.png", "--weights", weights, "--no-window", "--output"]
    for name, flags in (("plain.png", []), ("map.png", ["--explain"])):
        assert live_inference.main([*map(str, args), str(tmp_path / name), *flags]) == 0
    plain, shown = (cv2.imread(str(tmp_path / name)) for name in ("plain.png", "map.png"))
    changed = cv2.absdiff(plain, shown).max(2) > 40
    changed[:20, :100] = False  # the status line
    for x, y, w, h in boxes:
        assert changed[y : y + h, x : x + w].mean() > 0.02
        changed[y : y + h, x : x + w] = False
    assert not changed.any()


def test_an_explained_video(sample, weights, tmp_path):
    args = ["--source", sample / "clip.mp4", "--weights", weights, "--no-window", "--quiet"]
    for name, flags in (("plain.avi", []), ("map.avi", ["--explain"])):
        where = ["--output", str(tmp_path / name), "--max-frames", "12"]
        assert live_inference.main([*map(str, args), *where, *flags]) == 0
    plain, shown = (cv2.VideoCapture(str(tmp_path / name)) for name in ("plain.avi", "map.avi"))
    changed = [cv2.absdiff(plain.read()[1], shown.read()[1])[20:].max() > 60 for _ in range(12)]
    assert sum(changed) >= 8, "in each frame with a face"


def test_key_g_without_maps():
    """As with an ONNX file or the MLP: a line says what to do, until the next key."""
    shown, stub = [], types.SimpleNamespace
    pipeline = stub(classifier=stub(class_names=CLASS_NAMES, explains=False))
    source = stub(stills=False, camera=False, rate=30, status="")
    live = LiveRun(LiveOptions(0.4), pipeline, source, stub(show=shown.append), None)
    live.frame = make_frame(np.zeros((480, 640, 3), np.uint8), 0, 0.0)
    for key in "ghhg":
        live.started_at = time.perf_counter()
        live.handle_key(key)
    ends = [image[:20].any((0, 2)).nonzero()[0].max() for image in shown]
    assert ends[0] > 400 and ends[1] < 250 and ends[2] < 250 and ends[3] > 400, ends


# -- cameras -----------------------------------------------------------------------------------


def test_a_camera_unplugged_leaves_video_and_log_whole(weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(streams, "RETRY_SECONDS", 0.5)
    cameras, opened = [FakeCamera(film(0.01))], cv2.VideoCapture

    def capture(where):  # the video that was written is looked at too
        if isinstance(where, str):
            return opened(where)
        return cameras.pop() if cameras else FakeCamera()

    monkeypatch.setattr(sources.cv2, "VideoCapture", capture)
    video, log = tmp_path / "v.avi", tmp_path / "faces.csv"
    args = ["--weights", weights, "--no-window", "--output", video, "--log", log]
    assert live_inference.main([str(arg) for arg in args]) == 1
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert lines[0] == "camera 0 delivers no frames; reconnecting" and len(lines) == 2
    assert "error: camera 0 delivers no more frames" in captured.err
    assert "latency from camera to display" in captured.out
    monkeypatch.undo()
    assert len(frames_of(video)[0]) > 10 and len(rows_of(log)) > 5
    assert {row["face_id"] for row in rows_of(log)} == {"1"}


def test_a_slow_detector_does_not_delay_a_live_source(weights, tmp_path, monkeypatch):
    haar = detection.HaarDetector

    class Slow(haar):
        def __call__(self, frame, gray):
            time.sleep(0.4)
            return super().__call__(frame, gray)

    monkeypatch.setattr(detection, "HaarDetector", Slow)
    monkeypatch.setattr(streams, "RETRY_SECONDS", 0.3)
    cameras = [FakeCamera(film(0.03))]
    monkeypatch.setattr(
        sources.cv2, "VideoCapture", lambda where: cameras.pop() if cameras else FakeCamera()
    )
    log = tmp_path / "faces.csv"
    args = ["--weights", str(weights), "--no-window", "--log", str(log), "--quiet"]
    assert live_inference.main(args) == 1
    numbers = [int(row["frame"]) for row in rows_of(log)]
    assert len(numbers) > 15, "tracked between detections"
    assert np.median(np.diff(numbers)) == 1


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (["--source", "none.mp4"], "none.mp4 is missing; --source takes"),
        (["--source", "97"], "camera 97 cannot be opened"),
        (
            ["--source", "sample", "--weights", "none.pth"],
            "none.pth is missing; train it with: python advanced_network",
        ),
        (["--detector", "yunet"], "needs its model; add --detector-model"),
        (["--detector", "yunet", "--detector-model", "x.onnx"], "x.onnx is missing"),
        (["--source", "sample", "--output", "x.gif"], "the name of a video ends in"),
    ],
)
def test_one_line_for_what_is_wrong(weights, capsys, args, part):
    given = [] if "--weights" in args else ["--weights", weights]
    assert part in refused(capsys, live_inference, "--no-window", "--quiet", *given, *args)


def test_the_source_is_never_written_over(weights, tmp_path, capsys):
    frame, path = drawn_frame([(320, 240, 90)])[0], tmp_path / "a.png"
    cv2.imwrite(str(path), frame)
    for source in (path, path.as_uri()):
        for flag in ("--output", "--log"):
            args = ["--weights", weights, "--no-window", "--source", source, flag, path]
            assert live_inference.main([*map(str, args)]) == 1
            captured = capsys.readouterr()
            assert "a.png is the source itself" in captured.err and not captured.out
    assert np.array_equal(cv2.imread(str(path)), frame)


def test_one_image_file_for_several_images(weights, tmp_path, capsys):
    for name in "ab":
        cv2.imwrite(str(tmp_path / f"{name}.png"), drawn_frame([(320, 240, 90)])[0])
    log = tmp_path / "faces.csv"
    log.write_text("of an earlier run")
    args = ["--weights", weights, "--no-window", "--source", tmp_path, "--log", log]
    assert live_inference.main([*map(str, args), "--output", str(tmp_path / "c.png")]) == 1
    assert "for several images, name a folder" in capsys.readouterr().err
    assert log.read_text() == "of an earlier run", "bad flags overwrite nothing"


@pytest.mark.parametrize(
    "args",
    [
        ["--camera-size", "big"],
        ["--camera-size", "0x480"],
        ["--fps", "0"],
        ["--min-confidence", "2"],
        ["--serve", "0", "--log", "faces.csv"],
    ],
)
def test_bad_usage(args):
    with pytest.raises(SystemExit) as stop:
        live_inference.main(args)
    assert stop.value.code == 2


def test_default_weights(weights, tmp_path, monkeypatch, capsys):
    """The user's own weights come before the shipped ones, which any folder's run finds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(default, "REFERENCE_DIR", tmp_path / "shipped")
    image = tmp_path / "face.png"
    cv2.imwrite(str(image), drawn_frame([(320, 240, 90)])[0])
    args = ["--source", str(image), "--no-window"]
    assert live_inference.main(args) == 1
    missing = "error: results/advanced_model.pth is missing; train it with: python advanced_network"
    assert missing in capsys.readouterr().err
    for folder in ("shipped", "shipped/votes", "results", "results/votes"):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(weights, tmp_path / folder)
        assert live_inference.main(args) == 0
        assert f"{folder}/advanced_model.pth\n" in capsys.readouterr().out.split("weights: ")[1]


@pytest.mark.parametrize("script", ["live_inference.py", "export_onnx.py"])
@pytest.mark.parametrize(("flag", "code"), [("--help", 0), ("--nonsense", 2)])
def test_help_and_bad_usage_import_nothing_heavy(script, flag, code):
    """What takes more than a second: torch, and whatever brings torch or SciPy along."""
    program = (
        "import runpy, sys\n"
        "try:\n    runpy.run_path(sys.argv[1], run_name='__main__')\n"
        "finally:\n    print({'torch', 'scipy', 'cv2', 'numpy'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", program, ROOT / script, flag]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert result.returncode == code and result.stdout.endswith("set()\n"), result.stderr


def test_the_first_frame_needs_only_torch(weights):
    """torchvision, SciPy, scikit-learn and matplotlib would delay it by seconds."""
    program = (
        "import sys, live_inference\n"
        "assert live_inference.main(sys.argv[1:]) == 0\n"
        "slow = {'torchvision', 'torch._dynamo', 'scipy', 'sklearn', 'matplotlib'}\n"
        "print(slow & set(sys.modules))"
    )
    args = ["--source", "sample", "--no-window", "--max-frames", "1", "--quiet"]
    command = [sys.executable, "-c", program, *args, "--weights", weights]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert result.stdout == "set()\n", result.stdout + result.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have a display")
@pytest.mark.parametrize("display", ["", ":987"])
def test_no_display(weights, monkeypatch, display):
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    result = run_script("live_inference.py", "--source", "sample", "--weights", weights)
    assert_one_line_error(result, "display", "add --serve", "or --no-window")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_playable_video(sample, weights, tmp_path, number):
    video, log = tmp_path / "v.mp4", tmp_path / "faces.csv"
    process = subprocess.Popen(
        [sys.executable, ROOT / "live_inference.py", "--source", sample / "clip.mp4",
         "--weights", weights, "--no-window", "--output", video, "--log", log],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not log.exists() or len(log.read_text().splitlines()) < 30:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    assert "frames/s" in out and "stopped" in err
    assert len(frames_of(video)[0]) >= 28, "the last logged frame may be in work"


# -- real faces --------------------------------------------------------------------------------


def test_real_clip_has_no_fewer_faces_than_a_detection_in_every_frame(media, tmp_path):
    """The truth: one, none, one, none, three, one (segments.json). Plain: 1.134 a frame."""
    clip, log = media / "live_mix_640x480.mp4", tmp_path / "faces.csv"
    args = ["--source", clip, "--no-window", "--log", log, "--quiet"]
    assert live_inference.main([str(arg) for arg in args]) == 0
    counts = np.zeros(395, int)
    for row in rows_of(log):
        counts[int(row["frame"])] += 1
    segments = json.loads((media / "segments.json").read_text())[clip.name]
    truth = np.concatenate([np.full(s["last"] - s["first"] + 1, s["true_faces"]) for s in segments])
    assert counts.mean() >= 1.134
    assert np.minimum(counts, truth).mean() >= 1.073, "true faces of a detection in every frame"
    assert np.maximum(counts - truth, 0).mean() <= 0.07, "and no more false ones"
    assert not counts[truth == 0].any()


def test_real_clip_without_a_face(media, tmp_path):
    log = tmp_path / "faces.csv"
    args = ["--source", media / "pyfeat_no_face.mp4", "--no-window", "--log", log, "--quiet"]
    assert live_inference.main([str(arg) for arg in args]) == 0
    assert len(rows_of(log)) < 10


@pytest.mark.parametrize(
    ("name", "expression"),
    [("sk_astronaut.png", "happy"), ("human_emo_a3.jpg", "neutral"), ("human_emo_a7.jpg", "happy")],
)
def test_posed_expressions(media, tmp_path, name, expression):
    log = tmp_path / "faces.csv"
    args = ["--source", media / name, "--no-window", "--log", log, "--quiet"]
    assert live_inference.main([str(arg) for arg in args]) == 0
    (row,) = rows_of(log)
    assert row["expression"] == expression


def test_whole_frames_are_searched_in_threads_of_their_own(sample, weights, monkeypatch):
    threads = set()

    class Noting(detection.HaarDetector):
        def __call__(self, frame, gray):
            threads.add(threading.current_thread())
            return super().__call__(frame, gray)

    monkeypatch.setattr(detection, "HaarDetector", Noting)
    args = ["--source", sample / "clip.mp4", "--weights", weights, "--no-window", "--quiet"]
    assert live_inference.main([*map(str, args), "--max-frames", "20"]) == 0
    assert threads and threading.main_thread() not in threads
