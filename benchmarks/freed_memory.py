"""What a training step on the CPU gains by keeping memory that the last one freed.

    python benchmarks/freed_memory.py
    python benchmarks/freed_memory.py --preset default

Trains a preset of advanced_network.py on random faces in new processes, in turns with and without
`keep_freed_memory`, and tells for a step at each size of the faces, as medians: its time, the
processor time that the system spends in it, of all cores together, and how many pages of memory it
asks the system for. A step's time also depends on what else the machine does; system time hardly
does. Linux only.
"""

import argparse
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

import advanced_network
from benchmarks.scaling import random_split
from ferlab import cli, stage
from ferlab.data.splits import CLASS_NAMES
from ferlab.files import UserError
from ferlab.training.device import keep_freed_memory, precision_name
from ferlab.training.trainer import Trainer

CPU = torch.device("cpu")


def train(flags: argparse.Namespace, keep: bool) -> list[tuple[float, float, float]]:
    """Trains two epochs at each size; returns what a step of the second ones takes.

    That is milliseconds, milliseconds of system time, and pages.

    To be called in a process of its own, whose memory it decides on.
    """
    from resource import RUSAGE_SELF, getrusage  # not there on Windows

    if keep:
        keep_freed_memory()
    setup = advanced_network.setup(flags)
    recipe = stage.recipe_of(setup, flags, precision_name(flags.precision, CPU))
    model = stage.new_network(setup, len(CLASS_NAMES), flags.seed, CPU)
    trainer, val = Trainer(model, random_split(flags.faces), recipe), random_split(70)
    measured = []
    for _ in range(recipe.epochs):
        before = getrusage(RUSAGE_SELF)
        seconds = trainer.epoch(val, quiet=True)["train_seconds"]
        after = getrusage(RUSAGE_SELF)
        system, pages = after.ru_stime - before.ru_stime, after.ru_minflt - before.ru_minflt
        steps = trainer.steps_an_epoch
        measured.append((1000 * seconds / steps, 1000 * system / steps, pages / steps))
    return measured[1::2]


@cli.command
def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = advanced_network.parser()
    parser.description = __doc__
    parser.add_argument("--faces", type=cli.positive(int), default=5120, help="of an epoch")
    parser.add_argument("--rounds", type=cli.positive(int), default=5, help="processes of each")
    parser.set_defaults(preset="quick")
    flags = parser.parse_args(argv)
    if sys.platform != "linux":
        raise UserError("this benchmark needs Linux")
    flags.epochs, flags.small_share, flags.still_share, flags.soft_labels = 4, 0.5, 0.0, "none"
    rows: dict[bool, list] = {False: [], True: []}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as fresh:
        for number in range(flags.rounds):
            for keep, results in rows.items():
                results.append(fresh.submit(train, flags, keep).result())
            print(f"round {number + 1} of {flags.rounds} done", flush=True)
    print(f"{'faces':>7} {'memory':>10} {'ms a step':>10} {'system ms':>10} {'pages':>7}")
    for size, name in enumerate(("32x32", "48x48")):
        for keep, results in rows.items():
            milliseconds, system, pages = (
                median(column) for column in zip(*(r[size] for r in results), strict=True)
            )
            word = "kept" if keep else "given back"
            print(f"{name:>7} {word:>10} {milliseconds:10.1f} {system:10.1f} {pages:7,.0f}")
        ratio = median(
            kept[size][0] / given[size][0] for given, kept in zip(*rows.values(), strict=True)
        )
        print(f"{name:>7} {'kept / given back':>21} {ratio:.3f} of the time")
    return 0


if __name__ == "__main__":
    sys.exit(main())
