"""The export to ONNX, and the live program with the exported files, with and without torch."""

import csv
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

import export_onnx
import ferlab.export
import live_inference
from advanced_network import CNN
from baseline import MajorityClass
from basic_nn import MLP
from conftest import ROOT, assert_one_line_error, drawn_frame, refused, run_script
from ferlab.data.splits import CLASS_NAMES, load_split
from ferlab.files import UserError
from ferlab.live import onnx_classifier
from ferlab.live.classifier import Classifier, as_input
from ferlab.live.onnx_classifier import OnnxClassifier, open_session, read_metadata, seal
from ferlab.training.weights import load_model, save_model
from softmax import SoftmaxRegression
from transfer_learning import TransferNetwork

onnx = pytest.importorskip("onnx", reason="the export needs onnx, onnxscript and onnxruntime")
pytest.importorskip("onnxscript", reason="the export needs onnx, onnxscript and onnxruntime")
onnxruntime = pytest.importorskip("onnxruntime", reason="the export needs onnxruntime")

MODELS = {
    "advanced": (CNN, {"classes": 7, "widths": [8, 16], "blocks": 1}),
    "basic_nn": (MLP, {"classes": 7, "widths": [16, 8]}),
    "softmax": (SoftmaxRegression, {"classes": 7}),
    "transfer": (TransferNetwork, {"classes": 7, "backbone": "resnet18", "size": 64}),
    "baseline": (MajorityClass, {"classes": 7}),
}


def write_weights(folder, name):
    """Writes random weights of a small network; returns the file."""
    build, config = MODELS[name]
    torch.manual_seed(0)
    model = build(**config)
    for values in (*model.parameters(), *model.buffers()):
        if values.is_floating_point():
            values.data.add_(0.1 * (torch.rand_like(values) - 0.5))
    save_model(
        folder / f"{name}_model.pth", name, model, config, CLASS_NAMES, {"temperature": 1.25}
    )
    return folder / f"{name}_model.pth"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("weights"), "advanced")


@pytest.fixture(scope="module")
def export(weights, data_dir):
    """The script's output; its files lie beside the weights."""
    folder = weights.parent
    result = run_script("export_onnx.py", "--results-dir", folder, "--data-dir", data_dir, "--int8")
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture
def exported(weights, export):
    return weights.with_suffix(".onnx")


@pytest.fixture
def exported_int8(weights, export):
    return weights.with_name("advanced_model_int8.onnx")


def faces_of(count):
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (40 + 9 * n, 44 + 7 * n, 3), np.uint8) for n in range(count)]
    return [cv2.GaussianBlur(image, (0, 0), 3) for image in images]


# -- the script --------------------------------------------------------------------------------


def test_the_output_of_the_script(export, exported, exported_int8):
    assert export.stderr == "", "no warnings, no logs"
    assert f"wrote {exported} (float32, " in export.stdout
    assert (
        "70 test images: same class as torch on 70 (100.00%), largest difference of"
        in export.stdout
    )
    assert f"wrote {exported_int8} (int8, " in export.stdout
    assert export.stdout.count(", accuracy 0.") == export.stdout.count(" (torch 0.") == 2
    assert f"next: python live_inference.py --weights {exported_int8}" in export.stdout


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_the_file(exported, exported_int8, precision):
    path = exported if precision == "float32" else exported_int8
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    read = read_metadata(open_session(path.read_bytes(), 1), path)
    keys = (*onnx_classifier.KEYS, *onnx_classifier.OPTIONAL)
    assert read == {key: json.loads(metadata[key]) for key in keys if key in metadata}
    assert read["class_names"] == list(CLASS_NAMES) and read["precision"] == precision
    assert (read["image_size"], read["mean"], read["std"]) == (48, 0.5, 0.5)
    assert read["temperature"] == 1.25 and read["model"] == "advanced"
    assert str(ROOT).encode() not in path.read_bytes(), "no paths of the exporting machine"
    kinds = {node.op_type for node in model.graph.node}
    assert ("QuantizeLinear" in kinds) == (precision == "int8")


def test_any_number_of_faces_in_one_pass(weights, exported, data_dir):
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    images = load_split(data_dir, "val").images
    model, _ = load_model(weights)
    with torch.inference_mode():
        expected = model(images).numpy()
    for count in (1, 2, 5):
        (logits,) = session.run(["logits"], {"images": images[:count].numpy()})
        assert np.abs(logits - expected[:count]).max() < 1e-4


@pytest.mark.parametrize("name", ["baseline", "basic_nn", "softmax", "transfer"])
def test_other_models(name, data_dir, tmp_path, capsys):
    output = tmp_path / "new" / "model.onnx"
    path = write_weights(tmp_path, name)
    args = ["--weights", path, "--data-dir", data_dir, "--int8"]
    assert export_onnx.main([*map(str, args), "--output", str(output)]) == 0
    assert read_metadata(open_session(output.read_bytes(), 1), output)["model"] == name
    assert output.with_name("model_int8.onnx").exists()
    assert "(100.00%)" in capsys.readouterr().out
    faces = faces_of(3)
    live = [classifier(faces) for classifier in (Classifier(path), OnnxClassifier(output, 1))]
    assert np.abs(live[0] - live[1]).max() < 0.05, "the live program runs it from either file"


def test_without_splits_it_is_checked_on_random_images(weights, tmp_path, capsys):
    args = ["--weights", weights, "--data-dir", tmp_path, "--results-dir", tmp_path]
    assert export_onnx.main([str(arg) for arg in args]) == 0
    out = capsys.readouterr().out
    assert "neither the test nor the val split: checking on random images" in out
    assert "64 random images: same class as torch on 64 (100.00%)" in out


def test_a_model_that_differs_is_not_written(weights, data_dir, tmp_path, monkeypatch, capsys):
    torch.manual_seed(1)
    other = ferlab.export.to_onnx(CNN(**MODELS["advanced"][1]))
    monkeypatch.setattr(ferlab.export, "to_onnx", lambda model: other)
    args = ["--weights", weights, "--data-dir", data_dir, "--results-dir", tmp_path]
    assert export_onnx.main([str(arg) for arg in args]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "advanced_model.onnx is not written: it differs" in error
    assert not list(tmp_path.iterdir())


def test_one_line_for_what_is_wrong(weights, tmp_path, capsys):
    (tmp_path / "torn.pth").write_bytes(weights.read_bytes()[:5000])
    torch.save({"state_dict": {}}, tmp_path / "foreign.pth")
    for name in ("lenet", "compare_results", "../softmax"):  # no script, no model, no name
        torch.save(torch.load(weights) | {"model": name}, tmp_path / f"{name[-7:]}.pth")
    foreign = "is not a weights file of this project; train it with: python advanced_network.py"
    for args, part in {
        ("--weights", tmp_path / "none.pth"): "none.pth is missing; train it with: python adv",
        ("--weights", tmp_path / "softmax_model.pth"): "train it with: python softmax.py",
        ("--weights", tmp_path / "torn.pth"): "torn.pth is damaged",
        ("--weights", tmp_path / "foreign.pth"): foreign,
        ("--weights", tmp_path / "lenet.pth"): "weights of lenet, and lenet.py is no model script",
        ("--weights", tmp_path / "results.pth"): "compare_results.py is no model script",
        ("--weights", tmp_path / "softmax.pth"): "../softmax.py is no model script",
        ("--weights", weights, "--output", "model.pt"): "the name must end in .onnx",
        ("--weights", weights, "--int8"): "make them with: python dataset_preparation.py",
        ("--weights", weights, "--output", weights / "a.onnx"): "cannot write",
    }.items():
        flags = ["--data-dir", str(tmp_path), "--results-dir", str(tmp_path)]
        assert export_onnx.main([*map(str, args), *flags]) == 1, args
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and part in error
    assert not list(tmp_path.glob("*.onnx"))


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_packages(weights, monkeypatch, capsys, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    assert export_onnx.main(["--weights", str(weights)]) == 1
    assert capsys.readouterr().err == (
        f"error: {missing} is not installed; "
        "install it with: pip install onnx onnxscript onnxruntime\n"
    )


@pytest.mark.parametrize(
    "fault", ["raise TypeError('Descriptors cannot\\nbe created')", "import no_such_dependency"]
)
def test_a_package_that_cannot_be_imported(weights, monkeypatch, capsys, tmp_path, fault):
    """As an onnx does that was built for another protobuf: with any exception."""
    (tmp_path / "onnx.py").write_text(fault)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "onnx")
    assert export_onnx.main(["--weights", str(weights)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "cannot be imported (" in error and onnx.__version__ in error
    assert "Descriptors cannot be created" in error or "no_such_dependency" in error
    assert "install a version that fits with: pip install onnx onnxscript onnxruntime" in error


# -- running the file --------------------------------------------------------------------------


def test_preprocessing_is_that_of_the_splits():
    for face in [*faces_of(20), *(np.uint8(255) - face for face in faces_of(20))]:
        difference = np.abs(onnx_classifier.as_input(face, 48, 0.5, 0.5) - as_input(face).numpy())
        assert difference.max() < 2.01 / 127.5, "two grey levels"
        assert difference.mean() < 0.2 / 127.5


def test_the_live_classifiers_agree(weights, exported):
    faces = faces_of(5)
    expected = Classifier(weights)(faces)
    classifier = OnnxClassifier(exported, 1)
    assert classifier.class_names == CLASS_NAMES and classifier.temperature == 1.25
    for count in (5, 1, 0):
        probs = classifier(faces[:count])
        assert probs.dtype == np.float32 and probs.shape == (count, 7)
        assert count == 0 or np.abs(probs - expected[:count]).max() < 0.02


def run_live_without(modules, *args):
    """Runs the live program as if `modules` were not installed."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(sys.argv[1].split()))\n"
        "import live_inference\n"
        "sys.exit(live_inference.main(sys.argv[2:]))"
    )
    command = [sys.executable, "-c", code, modules, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)


def test_the_live_program_without_torch(weights, exported, tmp_path):
    cv2.imwrite(str(tmp_path / "two.png"), drawn_frame([(180, 200, 70), (460, 260, 90)])[0])
    args = ["--source", tmp_path / "two.png", "--no-window", "--log"]
    result = run_live_without(
        "torch torchvision onnx", *args, tmp_path / "onnx.csv", "--weights", exported
    )
    assert result.returncode == 0, result.stderr
    assert (
        live_inference.main(
            [*map(str, args), str(tmp_path / "torch.csv"), "--weights", str(weights)]
        )
        == 0
    )
    rows, expected = (
        list(csv.DictReader((tmp_path / name).open(encoding="utf-8")))
        for name in ("onnx.csv", "torch.csv")
    )
    assert len(rows) == len(expected) == 2
    for row, other in zip(rows, expected, strict=True):
        assert row["expression"] == other["expression"]
        assert float(row["confidence"]) == pytest.approx(float(other["confidence"]), abs=0.02)


def test_the_live_program_without_onnxruntime(exported):
    result = run_live_without(
        "onnxruntime", "--weights", exported, "--source", "sample", "--no-window"
    )
    assert_one_line_error(result, "onnxruntime is not installed", "pip install onnxruntime")


def test_onnx_files_have_no_gradients(exported, capsys):
    args = ["--weights", exported, "--source", "sample", "--no-window", "--explain"]
    assert "the .pth file" in refused(capsys, live_inference, *args)


def test_the_drawn_clip_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None; import ferlab.sample.dataset"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_torch_weights_without_torch(weights):
    result = run_live_without("torch", "--weights", weights, "--source", "sample", "--no-window")
    assert_one_line_error(result, "needs torch; install it with: pip install -r requirements.txt")


# -- files that are refused --------------------------------------------------------------------


def changed(exported, change):
    """Returns a whole file of a model that `change` has been made to."""
    model = onnx.load(exported)
    kept = [entry for entry in model.metadata_props if entry.key != "digest"]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    change(model)
    content = model.SerializeToString()
    return content + seal(content)


def set_metadata(key, value):
    def change(model):
        next(entry for entry in model.metadata_props if entry.key == key).value = value

    return change


def read_secret(model):
    """Takes the weights from a file outside of the model's folder."""
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret.bin")


def test_files_that_cannot_be_used(exported, tmp_path):
    whole = exported.read_bytes()
    (tmp_path / "secret.bin").write_bytes(bytes(1 << 20))
    folder = tmp_path / "models"
    folder.mkdir()
    for name, content, part in (
        ("empty", b"", "is damaged or not a model of this project"),
        ("torn", whole[: len(whole) // 2], "is damaged or not a model of this project"),
        ("picture", b"\x89PNG\r\n\x1a\n" + bytes(99), "is damaged or not a model of this"),
        ("foreign", changed(exported, lambda m: m.ClearField("metadata_props")), "is not a model"),
        ("newer", changed(exported, set_metadata("format", "9")), "has format 9, not 2"),
        (
            "fewer",
            changed(exported, set_metadata("class_names", '["happy", "sad"]')),
            "does not have one output for each class",
        ),
        (
            "broken",
            changed(exported, lambda m: setattr(m.graph.node[0], "op_type", "NoSuchOperator")),
            "cannot be opened by onnxruntime",
        ),
        ("external", changed(exported, read_secret), "cannot be opened by onnxruntime"),
    ):
        path = folder / f"{name}.onnx"
        path.write_bytes(content)
        with pytest.raises(UserError, match="; write it with: python export_onnx.py") as error:
            OnnxClassifier(path, 1)
        assert str(error.value).startswith(f"{path} {part}")
    for name, fault in (("none.onnx", "is missing"), (".", "is not a file")):
        with pytest.raises(UserError, match=f"{fault}; write it with"):
            OnnxClassifier(tmp_path / name, 1)


def test_a_changed_byte_is_noticed(exported, tmp_path):
    whole = exported.read_bytes()
    path = tmp_path / "changed.onnx"
    random = np.random.default_rng(0)
    last = range(len(whole) - len(seal(b"")), len(whole))
    for place in (*last, *random.integers(0, len(whole), 50)):
        content = bytearray(whole)
        content[place] ^= 1 << random.integers(8)
        path.write_bytes(content)
        with pytest.raises(UserError, match="is damaged or not a model of this project"):
            OnnxClassifier(path, 1)
