"""Tuning, run as a person runs it: what it writes, how it goes on, what it refuses."""

import csv
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

from conftest import ROOT, assert_one_line_error, run_script
from ferlab.data.splits import split_path

pytest.importorskip("optuna", reason="optuna is not installed: pip install -r requirements-dev.txt")

import tune_hyperparameters
from ferlab import tuning


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Processes that share two cores and believe to have both wait for each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


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
        "--epochs", epochs, "--batch-size", 40, *more,
    ]  # fmt: skip


def tune(*args):
    """Runs the script in this process; returns its exit code."""
    return tune_hyperparameters.main([*map(str, args), "--quiet"])


def start(*args):
    command = [sys.executable, ROOT / "tune_hyperparameters.py", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def trials_in(results, name="softmax"):
    return list(csv.DictReader((results / "tuning" / f"{name}_tuning.csv").open()))


@pytest.fixture(scope="module")
def study(blind_dir, tmp_path_factory):
    """A finished study of ten trials, and what the script printed."""
    results = tmp_path_factory.mktemp("study")
    result = run_script("tune_hyperparameters.py", *words("softmax.py", blind_dir, results, 10, 5))
    assert result.returncode == 0, result.stderr
    return results, result


def test_results_files_and_halving(study):
    results, result = study
    rows = trials_in(results)
    assert [row["trial"] for row in rows] == [str(number) for number in range(10)]
    assert (rows[0]["lr"], rows[0]["weight-decay"]) == ("0.003", "3"), "the script's own come first"
    assert rows[0]["state"] == "complete"
    epochs = {state: {r["epochs"] for r in rows if r["state"] == state} for state in tuning.DONE}
    assert epochs["complete"] == {"5"} and epochs["stopped"] and epochs["stopped"] <= {"1", "3"}
    text = (results / "tuning" / "softmax_tuning.txt").read_text()
    assert text in result.stdout and "best 0." in result.stderr
    best = max(float(row["val_accuracy"]) for row in rows if row["state"] == "complete")
    assert re.search(rf"^best +{best:.4f} \[", text, re.MULTILINE)
    assert re.search(rf"^defaults +{float(rows[0]['val_accuracy']):.4f} \[", text, re.MULTILINE)
    assert re.search(r"^machine +\w+ \(.*, 1 threads\)$", text, re.MULTILINE)
    assert "optimistic" in text and "test was not read" in text
    shares = re.findall(r"^(?:lr|weight-decay) +(\d+) %", text, re.MULTILINE)
    assert len(shares) == 2 and 99 <= sum(map(int, shares)) <= 101
    assert (results / "tuning" / "softmax_tuning.png").stat().st_size > 10_000
    assert not list((results / "tuning").glob(".*"))


def test_the_command_repeats_the_best_trial(study, data_dir, tmp_path):
    results, result = study
    command = re.search(r"^python (softmax\.py .*)$", result.stdout, re.MULTILINE)[1]
    script, *flags = shlex.split(command)
    assert flags[-1] == (results / "tuned").as_posix()
    result = run_script(script, *flags[:-1], tmp_path, "--data-dir", data_dir)
    assert result.returncode == 0, result.stderr
    history = csv.DictReader((tmp_path / "softmax_history.csv").open())
    best = max(float(row["val_accuracy"]) for row in trials_in(results) if row["best_epoch"])
    assert max(float(row["val_accuracy"]) for row in history) == best


def test_again_goes_on_to_more_trials_and_no_further(study, blind_dir, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(study[0], results)
    before = trials_in(results)
    assert tune(*words("softmax", blind_dir, results, 10, 5)) == 0
    assert trials_in(results) == before
    assert tune(*words("softmax", blind_dir, results, 12, 5)) == 0
    assert trials_in(results)[:10] == before and len(trials_in(results)) == 12
    lrs = [row["lr"] for row in trials_in(results)]
    assert len(set(lrs)) == 12, "a study that goes on doesn't draw the same again"


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_stopped_study_goes_on(blind_dir, tmp_path, stop):
    command = words("softmax.py", blind_dir, tmp_path, 2, 60)
    journal = tmp_path / "tuning" / "softmax.journal"
    process = start(*command)
    deadline = time.monotonic() + 300
    while not journal.exists() or '"intermediate_value"' not in journal.read_text():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(stop)
    _, stderr = process.communicate(timeout=300)
    if stop == signal.SIGINT:
        assert process.returncode == 130
        assert f"0 of 2 trials are in {journal}; the same command goes on" in stderr
        assert "Traceback" not in stderr
    assert tune(*command) == 0
    rows = trials_in(tmp_path)
    assert [row["state"] for row in rows][:2] == ["interrupted", "complete"] and len(rows) == 3
    assert rows[0]["lr"] == rows[1]["lr"] == "0.003", "the stopped trial is run anew"
    text = (tmp_path / "tuning" / "softmax_tuning.txt").read_text()
    assert "1 interrupted" in text and "\ndefaults " in text


def test_two_processes_share_a_study(blind_dir, tmp_path):
    command = words("softmax.py", blind_dir, tmp_path, 8, 15)
    processes = [start(*command) for _ in range(2)]
    for process in processes:
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
    rows = trials_in(tmp_path)
    assert 8 <= len(rows) <= 9, "both may begin a last one at the same instant"
    assert {row["state"] for row in rows} <= {"complete", "stopped"}
    assert sum(row["lr"] == "0.003" for row in rows) == 1, "the defaults are tried once"
    assert len({row["lr"] for row in rows}) == len(rows), "processes draw differently"


def test_database_and_timeout(capsys, blind_dir, tmp_path):
    command = words("softmax", blind_dir, tmp_path, 2, 2)
    assert tune(*command, "--storage", f"sqlite:///{tmp_path}/tuning.db", "--study", "mine") == 0
    assert (tmp_path / "tuning.db").exists() and len(trials_in(tmp_path)) == 2
    text = (tmp_path / "tuning" / "softmax_tuning.txt").read_text()
    assert f"mine in sqlite:///{tmp_path}/tuning.db" in " ".join(text.split())
    assert tune(*words("softmax", blind_dir, tmp_path, 1000, 2), "--timeout", "0.02") == 0
    assert 1 <= len(trials_in(tmp_path)) < 1000


@pytest.mark.parametrize("model", ["basic_nn", "advanced"])
def test_every_script_can_be_tuned(blind_dir, tmp_path, model):
    more = ["--widths", 8, 8, "--precision", "float32"]
    assert tune(*words(model, blind_dir, tmp_path, 2, 2, *more)) == 0
    rows = trials_in(tmp_path, model)
    assert list(rows[0])[6:] == ["lr", "weight-decay", "dropout", "augment-strength"]
    assert rows[0]["augment-strength"] == "1" != rows[1]["augment-strength"]
    text = (tmp_path / "tuning" / f"{model}_tuning.txt").read_text()
    assert "--widths 8 8 --precision float32 --lr " in text


@pytest.mark.parametrize("script", tune_hyperparameters.SEARCH)
def test_every_parameter_is_a_flag_whose_default_can_be_suggested(script):
    args = tune_hyperparameters.parser().parse_args([script])
    job = tune_hyperparameters.make_job(args, [])
    study = tuning.optuna.create_study()
    trial = tuning.next_trial(study, job.space, job.defaults, seed=0)
    assert trial.params == job.defaults == {name: job.defaults[name] for name in job.space}
    flags = tune_hyperparameters.flags_of(trial.params)
    assert job.parser.parse_args(flags) == job.args


def test_diverging_trials_do_not_end_the_study(blind_dir, tmp_path):
    assert tune(*words("softmax", blind_dir, tmp_path, 2, 2, "--lr", "1e36")) == 0
    text = (tmp_path / "tuning" / "softmax_tuning.txt").read_text()
    assert "2 diverged" in text and "No trial has run to its end yet" in text


# -- what is refused ---------------------------------------------------------------------------


def refused(capsys, *args):
    assert tune(*args) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


def test_a_study_of_something_else(capsys, study, blind_dir, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(study[0], results)
    line = refused(capsys, *words("softmax", blind_dir, results, 12, 7))
    assert "was made with epochs 5, not 7" in line and "--study NAME" in line
    line = refused(capsys, *words("softmax", blind_dir, results, 12, 5, "--lr", "0.1"))
    assert "was made with lr 0.003, not 0.1" in line
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(split_path(blind_dir, "train"), other)
    shutil.copy(split_path(blind_dir, "train"), split_path(other, "val"))
    line = refused(capsys, *words("softmax", other, results, 12, 5))
    assert "was made with val split" in line
    assert trials_in(results) == trials_in(study[0])


@pytest.mark.parametrize(
    "storage", ["garbage", "sqlite:////no/such/folder/x.db", "nonsense://user:secret@host/x"]
)
def test_storage_that_cannot_be_opened(capsys, blind_dir, tmp_path, storage):
    if storage == "garbage":
        storage = tmp_path / "garbage"
        storage.write_text("no journal\nat all\n")
    line = refused(capsys, *words("softmax", blind_dir, tmp_path, 2, 2), "--storage", storage)
    assert "cannot open" in line and "--storage takes a journal file or a URL" in line
    assert "secret" not in line


def test_missing_split(capsys, tmp_path):
    line = refused(capsys, *words("softmax", tmp_path / "none", tmp_path, 2, 2))
    assert "train_data.pt is missing" in line and "python dataset_preparation.py" in line


@pytest.mark.parametrize(
    "args, fault",
    [
        (["baseline.py"], "invalid choice"),
        (["softmax.py", "--no-such-flag", "1"], "unrecognized arguments: --no-such-flag"),
        (["softmax.py", "--trials", "0"], "argument --trials"),
        (["softmax.py", "--resume"], "a trial takes no --evaluate and no --resume"),
        (["softmax.py", "--weights", "w.pth"], "--weights are those of --evaluate"),
        (["softmax.py", "--lr", "1", "--weight-decay", "0"], "nothing to search"),
    ],
)
def test_bad_usage_is_2(args, fault, capsys):
    with pytest.raises(SystemExit) as stop:
        tune_hyperparameters.main(args)
    assert stop.value.code == 2
    assert fault in capsys.readouterr().err


def test_without_optuna():
    code = (
        "import sys; sys.modules['optuna'] = None; import tune_hyperparameters as script; "
        "sys.exit(script.main(['softmax.py']))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert_one_line_error(result, "needs optuna; install it with: pip install optuna")
