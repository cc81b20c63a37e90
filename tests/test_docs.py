"""The README and docs/ keep pace with the code: commands, make targets, files and links.

No command is run here: each is parsed by its script's own parser. tests/test_pipeline.py runs one
of each script.
"""

import importlib
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser as torchrun_parser

from conftest import ROOT
from ferlab import cli

PAGES = ["README.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))]
PAGES += ["CONTRIBUTING.md"]
SHELL = {"cd", "git", "source", "ssh", "sudo"}  # programs of other lines, which are not checked
WRITES = {"--results-dir", "--output", "--log"}  # flags that name what a script writes
TRACKED = {path.name for path in ROOT.iterdir() if not path.name.startswith((".", "data"))}
TRACKED -= {"results", "processed_data"}
PASS_FLAGS_ON = {  # to a model's script
    "tune_hyperparameters.py",
    "benchmarks/ablation.py",
    "benchmarks/learning_curve.py",
}


class Parsed(BaseException):
    """Ends a script's `main` when its command line has been parsed."""


@pytest.fixture
def parse(monkeypatch, capsys, own_model):
    """A function that parses a script's command line as its `main` does, and goes no further."""
    original = cli.Parser.parse_known_args

    def parse_and_stop(self, args=None, namespace=None):
        raise Parsed(*original(self, args, namespace))

    def check(script, words):
        found = any((folder / script).is_file() for folder in (ROOT, own_model))
        assert found, f"{script} does not exist"
        module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
        try:
            code = module.main(words)
        except Parsed as parsed:
            args, unknown = parsed.args
            if unknown and script in PASS_FLAGS_ON:
                return check(getattr(args, "script", "advanced_network.py"), unknown)
            assert not unknown, f"{shlex.join([script, *words])}: no such flags: {unknown}"
            return None
        except SystemExit as stop:
            code = stop.code
        pytest.fail(f"exit code {code}: {shlex.join([script, *words])}\n{capsys.readouterr().err}")

    monkeypatch.setattr(cli.Parser, "parse_known_args", parse_and_stop)
    monkeypatch.syspath_prepend(own_model)
    return check


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def commands(page):
    """Returns the command lines of a page: of its bash blocks, and inline `python` and `make`."""
    text = text_of(page)
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    lines += re.findall(r"`((?:python [a-z_/]+\.py|make [a-z]|torchrun )[^`]*)`", prose)
    return [line for line in lines if shlex.split(line, comments=True) and "…" not in line]


def script_and_words(line):
    """Returns the script of a Python or torchrun command and its words, or None for others."""
    words = shlex.split(line, comments=True)
    if words[0] == "torchrun":
        run, unknown = torchrun_parser().parse_known_args(words[1:])
        assert not unknown, line
        return run.training_script, run.training_script_args
    if words[0] == "python" and words[1].endswith(".py"):
        return words[1], words[2:]
    return None


def flags_and_values(words):
    """Yields each value of a command line with the flag that it belongs to."""
    flag = ""
    for word in words:
        if word.startswith("--"):
            flag, _, word = word.partition("=")
        if word:
            yield flag, word


@pytest.mark.parametrize("line", dict.fromkeys(line for page in PAGES for line in commands(page)))
def test_command_parses(line, parse):
    words = shlex.split(line, comments=True)
    if command := script_and_words(line):
        parse(*command)
    elif words[:2] == ["pip", "install"] and "-r" in words:
        assert (ROOT / words[words.index("-r") + 1]).is_file(), line
    else:
        known = words[0] in {"make", "pip", *SHELL} or words[:2] == ["python", "-m"]
        assert known, f"{line}: neither a script of the project nor a known program"


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page):
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for line in commands(page):
        if line.startswith("make "):
            command = ["make", "-n", *shlex.split(line, comments=True)[1:]]
            result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            assert result.returncode == 0, f"{line}: {result.stderr}"


@pytest.mark.parametrize("page", PAGES)
def test_files_that_commands_read_are_there_or_written_by_an_earlier_command(page):
    written = {Path("results"), Path("results/votes")}
    for line in commands("README.md") + commands(page):
        if not (command := script_and_words(line)):
            continue
        script, words = command
        for flag, value in flags_and_values(words):
            path = Path(value)
            if path.parts[0] in TRACKED and path.suffix != ".onnx":
                assert (ROOT / path).exists(), f"{line}: {path} is not in the repository"
            elif flag in WRITES and script != "compare_results.py":
                written |= {path, *path.parents}
            elif path.parts[0] == "results":
                assert {path, path.parent} & written, f"{line}: nothing before it writes {path}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, link


def test_scripts_named_in_the_pages_exist(own_model):
    named = {name for page in PAGES for name in re.findall(r"`([a-z_/]+\.py)`", text_of(page))}
    assert len(named) >= 8
    for name in named:
        own = ROOT / name, own_model / name
        assert any(map(Path.is_file, own)) or list(ROOT.glob(f"ferlab/**/{name}")), name


@pytest.mark.parametrize("path", sorted((ROOT / "reference").rglob("*_metrics.json")), ids=str)
def test_results_table_is_that_of_the_reference(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    test = record["test"]
    cells = [f"{record['parameters']:,}", f"{record['run']['seconds']:,.0f} s"]
    for numbers in (test, test["raters"]):
        low, high = numbers["accuracy_interval"]
        cells.append(f"{numbers['accuracy']:.3f} [{low:.3f}, {high:.3f}]")
    rows = [line for line in text_of("README.md").splitlines() if line.startswith("|")]
    assert any(all(cell in row for cell in cells) for row in rows), f"no row with {cells}"


def test_readme_is_short():
    assert len(text_of("README.md").splitlines()) <= 200
