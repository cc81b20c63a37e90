"""Tuning: what it writes, how a study continues, what it refuses."""

import csv
import re
import shlex
import shutil
import subprocess
import sys
import time

import pytest

from conftest import ROOT, refused, run_script
from ferlab.data.splits import load_split, split_path

pytest.importorskip("optuna", reason="optuna is not installed: pip install -r requirements-dev.txt")
pytest.importorskip("pandas", reason="pandas is not installed: pip install -r requirements-dev.txt")

import optuna

import softmax
import tune_hyperparameters
from ferlab import tuning
from ferlab.training.trainer import Trainer

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture(scope="module")
def blind_dir(data_dir, tmp_path_factory):
    """Splits whose test cannot be read."""
    folder = tmp_path_factory.mktemp("blind")
    for split in ("train", "val"):
        shutil.copy(split_path(data_dir, split), folder)
    split_path(folder, "test").write_bytes(b"who reads this is refused")
    return folder


def words(script, data, results, trials, epochs, *more):
    return [
        script, "--data-dir", data, "--results-dir", results, "--trials", trials,
        "--epochs", epochs, "--batch-size", 40, "--device", "cpu", *more,
    ]  # fmt: skip


def tune(*args):
    """Runs the script in this process; returns its exit code."""
    return tune_hyperparameters.main([*map(str, args), "--quiet"])


def trials_in(results, name="softmax"):
    return list(csv.DictReader((results / "tuning" / f"{name}_tuning.csv").open()))


def text_in(results, name="softmax"):
    return (results / "tuning" / f"{name}_tuning.txt").read_text()


@pytest.fixture(scope="module")
def study(blind_dir, tmp_path_factory):
    """A finished study of eight trials, and what the script printed.

    As in a notebook's shell, the environment names a backend of matplotlib that is not installed.
    """
    results = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("MPLBACKEND", "module://not_installed")
        result = run_script(
            "tune_hyperparameters.py", *words("softmax.py", blind_dir, results, 8, 5)
        )
    assert result.returncode == 0, result.stderr
    return results, result


def test_results_files_and_halving(study):
    results, result = study
    rows = trials_in(results)
    assert [row["number"] for row in rows] == [str(number) for number in range(8)]
    assert (rows[0]["params_lr"], rows[0]["params_weight-decay"]) == ("0.003", "3.0")
    assert rows[0]["state"] == "COMPLETE", "the script's own values come first and to their end"
    assert {row["state"] for row in rows} == {"COMPLETE", "PRUNED"}
    text = text_in(results)
    assert text in result.stdout and "Traceback" not in result.stderr
    assert re.search(
        r"^trial 7: val accuracy 0\.\d{4}, \w+ after epoch \d: --lr ", result.stdout, re.M
    )
    best = max(float(row["value"]) for row in rows if row["state"] == "COMPLETE")
    assert re.search(rf"^best +{best:.4f} \[0\.\d+, [01]\.\d+\]", text, re.MULTILINE)
    assert re.search(rf"^defaults +{float(rows[0]['value']):.4f} \[", text, re.MULTILINE)
    assert "optimistic" in text and "test was not read" in text
    parts = re.findall(r"^(?:lr|weight-decay) +(\d+) %", text, re.MULTILINE)
    assert len(parts) == 2 and 99 <= sum(map(int, parts)) <= 101
    for kind in ("history", "slice"):
        assert (results / "tuning" / f"softmax_tuning_{kind}.png").stat().st_size > 10_000
    assert not list((results / "tuning").glob(".*"))


def test_the_command_repeats_the_best_trial(study, data_dir, tmp_path):
    results, result = study
    command = re.search(r"^python softmax\.py (.*)$", result.stdout, re.MULTILINE)[1]
    flags = shlex.split(command)
    assert str(results / "tuned") in flags
    assert softmax.main([*flags, "--results-dir", str(tmp_path), "--data-dir", str(data_dir)]) == 0
    history = csv.DictReader((tmp_path / "softmax_history.csv").open())
    best = max(float(row["value"]) for row in trials_in(results) if row["state"] == "COMPLETE")
    assert max(float(row["val_accuracy"]) for row in history) == pytest.approx(best, abs=1e-6)


def test_again_continues_to_more_trials_and_no_further(study, blind_dir, tmp_path):
    shutil.copytree(study[0], tmp_path, dirs_exist_ok=True)
    before = trials_in(tmp_path)
    assert tune(*words("softmax.py", blind_dir, tmp_path, 8, 5)) == 0
    assert trials_in(tmp_path) == before
    assert tune(*words("softmax.py", blind_dir, tmp_path, 10, 5)) == 0
    assert trials_in(tmp_path)[:8] == before
    rates = [row["params_lr"] for row in trials_in(tmp_path)]
    assert len(set(rates)) == 10, "a study that continues does not draw the same values again"


def test_ctrl_c_and_the_same_command_again(capsys, monkeypatch, blind_dir, tmp_path):
    command = words("softmax.py", blind_dir, tmp_path, 2, 2)

    def interrupted(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "epoch", interrupted)
        assert tune(*command) == 130
    place = tmp_path / "tuning" / "softmax.db"
    line = f"stopped: 0 of 2 trials are in {place}; the same command continues\n"
    assert capsys.readouterr().err.lstrip() == line
    assert tune(*command) == 0
    rows = trials_in(tmp_path)
    assert [row["state"] for row in rows] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert rows[0]["params_lr"] == rows[1]["params_lr"] == "0.003", "the trial is run again"
    assert "1 fail, 2 complete" in text_in(tmp_path) and "\ndefaults " in text_in(tmp_path)


@pytest.mark.parametrize("method", ["enqueue_trial", "set_user_attr"])
def test_ctrl_c_while_the_study_is_made(capsys, monkeypatch, blind_dir, tmp_path, method):
    """The first trial has the script's own values, whenever the first command was stopped."""
    command = words("softmax.py", blind_dir, tmp_path, 1, 2)
    original = getattr(optuna.Study, method)

    def interrupted(*args, **options):
        original(*args, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, method, interrupted)
        assert tune(*command) == 130
    assert "0 of 1 trials are in" in capsys.readouterr().err
    assert tune(*command) == 0
    assert [row["params_lr"] for row in trials_in(tmp_path)] == ["0.003"]


HANGS = """
import sys, time
import tune_hyperparameters
from ferlab import tuning
from ferlab.training.trainer import Trainer

def epoch(*args, **options):
    print("a trial has started", flush=True)
    time.sleep(600)

tuning.HEARTBEAT, Trainer.epoch = 1, epoch
tune_hyperparameters.main(sys.argv[1:])
"""


def test_processes_share_a_study_and_a_killed_ones_trial_is_run_again(
    monkeypatch, blind_dir, tmp_path
):
    command = [*map(str, words("softmax.py", blind_dir, tmp_path, 2, 2))]
    monkeypatch.setattr(tuning, "GRACE", 5)
    process = subprocess.Popen(
        [sys.executable, "-c", HANGS, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "a trial has started\n"
        assert tune(*command) == 0
        assert [row["state"] for row in trials_in(tmp_path)] == ["RUNNING", "COMPLETE", "COMPLETE"]
        assert "defaults " not in text_in(tmp_path)
    finally:
        process.kill()
        process.communicate()
    time.sleep(tuning.GRACE + 2)  # the database counts whole seconds
    command[command.index("--trials") + 1] = "3"
    assert tune(*command) == 0
    rows = trials_in(tmp_path)
    assert [row["state"] for row in rows] == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert rows[0]["params_lr"] == rows[3]["params_lr"] == "0.003"
    assert "\ndefaults " in text_in(tmp_path)


def test_storage_study_and_timeout(blind_dir, tmp_path):
    storage = f"sqlite:///{tmp_path}/tuning.db"
    command = words("softmax.py", blind_dir, tmp_path, 1000, 1, "--timeout", "0.0001")
    assert tune(*command, "--storage", storage, "--study", "mine") == 0
    assert (tmp_path / "tuning.db").exists() and len(trials_in(tmp_path)) == 1
    assert f"mine in {storage}" in " ".join(text_in(tmp_path).split())


@pytest.mark.parametrize(
    "model, script", [("basic_nn", "basic_nn.py"), ("advanced", "advanced_network.py")]
)
def test_other_scripts(blind_dir, tmp_path, model, script):
    more = ["--preset", "quick"] if model == "advanced" else []
    command = words(script, blind_dir, tmp_path, 1, 1, "--precision", "float32", *more)
    assert tune(*command) == 0
    [row] = trials_in(tmp_path, model)
    searched = [f"params_{name}" for name in tune_hyperparameters.SEARCH[script]]
    assert {name for name in row if name.startswith("params_")} == set(searched)
    assert "--precision float32" in text_in(tmp_path, model)


@pytest.mark.parametrize("script", tune_hyperparameters.SEARCH)
def test_searched_flags_are_flags_of_the_script(script):
    job = tune_hyperparameters.make_job(tune_hyperparameters.parser().parse_args([script]), [])
    known = {
        text.removeprefix("--") for action in job.parser._actions for text in action.option_strings
    }
    missing = set(tune_hyperparameters.SEARCH[script]) - known
    assert not missing, f"{script} has no flags {missing}: correct SEARCH"
    study = tuning.optuna.create_study()
    study.enqueue_trial(job.defaults)
    flags = tuning.suggest(study.ask(), job.defaults, seed=0)
    assert study.trials[0].params == job.defaults, "each range includes the default"
    assert job.parser.parse_args(flags) == job.args
    other = tuning.suggest(study.ask(), job.defaults, seed=0)
    assert vars(job.parser.parse_args(other)).keys() == vars(job.args).keys() and other != flags


def test_votes_count_the_images_with_a_majority(votes_dir, tmp_path):
    assert tune(*words("softmax.py", votes_dir, tmp_path, 1, 1, "--targets", "votes")) == 0
    images = int((load_split(votes_dir, "val").majority >= 0).sum())
    assert images < 70 and f"{images} images of val that count" in " ".join(
        text_in(tmp_path).split()
    )
    accuracy = float(trials_in(tmp_path)[0]["value"])
    assert images * accuracy == pytest.approx(round(images * accuracy), abs=1e-3)


def test_diverging_trials_do_not_end_the_study(blind_dir, tmp_path):
    assert tune(*words("softmax.py", blind_dir, tmp_path, 2, 2, "--lr", "1e36")) == 0
    assert all("loss is not finite" in row["user_attrs_fault"] for row in trials_in(tmp_path))
    assert "No trial is complete yet" in text_in(tmp_path)


# -- what is refused ---------------------------------------------------------------------------


def test_a_study_of_something_else(capsys, study, blind_dir, tmp_path):
    shutil.copytree(study[0], tmp_path, dirs_exist_ok=True)

    def line(data, epochs, *more):
        command = words("softmax.py", data, tmp_path, 12, epochs, *more)
        return refused(capsys, tune_hyperparameters, *command)

    assert "has epochs 5, not 7; repeat" in line(blind_dir, 7)
    assert "--study NAME" in line(blind_dir, 7)
    assert "has class_weights none, not balanced" in line(
        blind_dir, 5, "--class-weights", "balanced"
    )
    assert "has searched ['lr', 'weight-decay'], not ['lr']" in line(
        blind_dir, 5, "--weight-decay", "3"
    )
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(split_path(blind_dir, "train"), other)
    shutil.copy(split_path(blind_dir, "train"), split_path(other, "val"))
    assert "has val split" in line(other, 5)
    assert trials_in(tmp_path) == trials_in(study[0])


@pytest.mark.parametrize(
    "storage", ["garbage", "no/such/folder/x.db", "nonsense://user:secret@host/x", "postgresql://x"]
)
def test_storage_that_cannot_be_opened(capsys, blind_dir, tmp_path, storage):
    if "://" not in storage:
        storage = tmp_path / storage
    (tmp_path / "garbage").write_text("no database\n" * 200)
    command = words("softmax.py", blind_dir, tmp_path, 2, 2, "--storage", storage)
    line = refused(capsys, tune_hyperparameters, *command)
    assert "cannot open" in line and "--storage takes an SQLite file or a database URL" in line
    assert "secret" not in line


def test_storage_that_breaks_in_a_trial(capsys, monkeypatch, blind_dir, tmp_path):
    storage, epoch = tmp_path / "x.db", Trainer.epoch

    def breaking(trainer, *args, **options):
        storage.write_text("no database any more\n" * 200)
        return epoch(trainer, *args, **options)

    monkeypatch.setattr(Trainer, "epoch", breaking)
    command = words("softmax.py", blind_dir, tmp_path, 2, 2, "--storage", storage, "--quiet")
    line = refused(capsys, tune_hyperparameters, *command)
    assert f"{storage}: file is not a database; once mended, the same command continues" in line


def test_missing_split(capsys, tmp_path):
    command = words("softmax.py", tmp_path / "none", tmp_path, 2, 2)
    line = refused(capsys, tune_hyperparameters, *command)
    assert "train_data.pt is missing" in line and "python dataset_preparation.py" in line


@pytest.mark.parametrize("package", ["optuna", "pandas"])
def test_without_its_packages(capsys, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    line = refused(capsys, tune_hyperparameters, "softmax.py")
    assert line.endswith("install them with: pip install optuna pandas")


@pytest.mark.parametrize(
    "args, fault",
    [
        (["baseline.py"], "baseline.py is no script of a model"),
        (["nothing.py"], "nothing.py is no script of a model"),
        (["compare_results.py"], "compare_results.py is no script of a model"),
        (["softmax.py", "--no-such-flag", "1"], "unrecognized arguments: --no-such-flag"),
        (["softmax.py", "--trials", "0"], "argument --trials"),
        (["softmax.py", "--resume"], "a trial takes no --evaluate and no --resume"),
        (["softmax.py", "--lr", "1", "--weight-decay", "0"], "nothing to search"),
    ],
)
def test_bad_usage_is_2(args, fault, capsys):
    with pytest.raises(SystemExit) as stop:
        tune_hyperparameters.main(args)
    assert stop.value.code == 2
    assert fault in capsys.readouterr().err


@pytest.mark.parametrize("args", [["--help"], ["softmax.py", "--trials", "0"]])
def test_help_and_usage_errors_load_no_heavy_package(args):
    code = (
        "import sys, atexit, tune_hyperparameters\n"
        "atexit.register(lambda: print({'torch', 'optuna', 'matplotlib'} & set(sys.modules)))\n"
        f"tune_hyperparameters.main({args})"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.stdout.endswith("set()\n"), result.stderr
