"""The four model scripts, with flags that make their networks small."""

import json

import advanced_network
import baseline
import basic_nn
import softmax

SCRIPTS = {
    "baseline": baseline,
    "softmax": softmax,
    "basic_nn": basic_nn,
    "advanced": advanced_network,
}
EACH_MAIN = ("baseline", "softmax")  # the baseline has its own, the others have `stage.run`
SMALL = {
    "baseline": [],
    "softmax": ["--epochs", "2", "--batch-size", "40"],
    "basic_nn": ["--epochs", "2", "--batch-size", "40", "--widths", "32", "16"],
    "advanced": ["--epochs", "2", "--batch-size", "40", "--widths", "8", "16", "--blocks", "1"],
}


def run(name, *args):
    """Runs a script in this process, its network small; returns its exit code."""
    return SCRIPTS[name].main([*map(str, args), *SMALL[name], "--quiet"])


def metrics_of(folder, name):
    return json.loads((folder / f"{name}_metrics.json").read_text())
