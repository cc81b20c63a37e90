"""Downloads the dataset from Kaggle without an account, and the FER+ votes from GitHub.

    python download_dataset.py                   # Kaggle, about 120 MB, and 1.6 MB of votes
    python download_dataset.py --archive face-expression-recognition-dataset.zip
    python download_dataset.py --archive FILE.zip --votes fer2013new.csv    # without a network
    python download_dataset.py --sample          # drawn faces, into data/sample

Writes `data/face-expression-recognition-dataset/images/train/<class>/*.jpg` and so on, and
`data/fer2013new.csv`: what ten raters saw in each image (microsoft/FERPlus, MIT licence). A folder
that is complete, by the number and size of its files, is kept; `--force` makes it again. The same
command resumes an interrupted download. `--archive` takes the zip of any dataset that docs/data.md
lists. Behind a proxy that signs TLS connections itself, set REQUESTS_CA_BUNDLE to its CA
certificates.
"""

import argparse
import http.client
import shutil
import sys
import urllib.request
from pathlib import Path

from ferlab import cli, entry

DATA_DIR = Path("data")
VOTES_NAME = "fer2013new.csv"
VOTES_URL = f"https://raw.githubusercontent.com/microsoft/FERPlus/master/{VOTES_NAME}"
VOTES_TIMEOUT = 20  # seconds without an answer


def parser() -> argparse.ArgumentParser:
    """Returns the script's parser."""
    result = cli.parser(__doc__)
    source = result.add_mutually_exclusive_group()
    source.add_argument(
        "--archive", type=Path, metavar="ZIP", help="zip to unpack instead of downloading one"
    )
    source.add_argument(
        "--sample", action="store_true", help="draw a sample dataset and a video, without votes"
    )
    result.add_argument(
        "--votes",
        type=Path,
        metavar="FILE",
        help=f"FER+'s {VOTES_NAME}, copied instead of downloaded",
    )
    result.add_argument("--data-dir", type=Path, default=DATA_DIR, help="folder to write to")
    result.add_argument(
        "--force", action="store_true", help="download, unpack or draw again even what is complete"
    )
    return result


if __name__ == "__main__":
    entry.before_imports(parser())

import numpy as np

from ferlab.commands import stage_command
from ferlab.data.archive import is_complete, replace_folder, unpack
from ferlab.data.complete import write_record
from ferlab.data.kaggle_client import NAME, PROXY, fetch_from_kaggle, trusted
from ferlab.data.layouts import Layout, find_layout
from ferlab.data.votes import HEADER, mostly_rows, read_table
from ferlab.files import UserError, atomic_path, naming_write_errors, require_file, require_writable


def draw_sample(target: Path) -> None:
    """Draws the sample dataset and its video to the folder `target`."""
    from ferlab.sample.dataset import write_sample_clip, write_sample_dataset

    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with naming_write_errors(target):
            write_sample_dataset(temporary)
            write_sample_clip(temporary)
            write_record(temporary)
            replace_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def add_votes(path: Path, source: Path | None, force: bool) -> None:
    """Writes FER+'s table of votes to `path`: a copy of `source`, else a download.

    An existing table is kept, unless `source` or `force` asks for another. If the download fails, a
    warning is printed: the dataset can be used without votes.

    Raises:
        UserError: `source` is missing or is not FER+'s table, or `path` cannot be written.
    """
    if source:
        read_table(source)
        content = source.read_bytes()
    elif not force and path.is_file() and _is_table(path):
        return
    else:
        try:
            options = {"timeout": VOTES_TIMEOUT, "context": trusted()}
            with urllib.request.urlopen(VOTES_URL, **options) as response:
                content = response.read()
            if content.split(b"\n", 1)[0].rstrip(b"\r") != HEADER.encode():
                raise OSError("the answer is not FER+'s table")
        except (OSError, http.client.HTTPException) as error:
            if path.is_file():
                effect = f"the older {path} is kept"
            else:
                effect = (
                    f"without {path}, models are evaluated on the labels only and cannot be "
                    "trained with --targets votes; to add the votes later, run this command "
                    f"again, or get {VOTES_URL} another way and give it with --votes FILE"
                )
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                effect = f"{PROXY}; {effect}"
            print(f"warning: the votes are not downloaded ({error}): {effect}", file=sys.stderr)
            return
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    print(f"wrote {path}")


def _is_table(path: Path) -> bool:
    try:
        read_table(path)
    except UserError:
        return False
    return True


def summary(layout: Layout) -> str:
    """Returns a table of the number of files in each split and class."""
    counts = {
        split: np.bincount(layout.labels[rows], minlength=len(layout.class_names)).tolist()
        for split, rows in layout.splits.items()
    }
    lines = [f"{layout.form}:", f"{'':10}" + "".join(f"{split:>12}" for split in counts)]
    for index, name in enumerate(layout.class_names):
        lines.append(f"{name:10}" + "".join(f"{column[index]:12,}" for column in counts.values()))
    lines.append(f"{'all':10}" + "".join(f"{sum(column):12,}" for column in counts.values()))
    return "\n".join(lines)


def next_command(data_dir: Path, sample: bool, votes: bool = False) -> str:
    """Returns the command that prepares what was written to `data_dir`.

    Args:
        data_dir: folder of the dataset's folder.
        sample: whether the dataset is the drawn one.
        votes: whether the images are those of FER+'s table.
    """
    flags = ["--source", str(data_dir / ("sample" if sample else NAME))]
    if not sample and data_dir == DATA_DIR:
        flags = []
    elif votes and (data_dir / VOTES_NAME).is_file():
        flags += ["--votes", str(data_dir / VOTES_NAME)]
    splits = cli.DATA_DIR / "sample" if sample else cli.DATA_DIR
    return stage_command("dataset_preparation.py", *flags, data_dir=splits)


@entry.command
def main(argv: list[str] | None = None) -> int:
    """Runs the stage; returns the exit code."""
    arguments = parser()
    args = arguments.parse_args(argv)
    if args.sample and args.votes:
        arguments.error("argument --votes: not allowed with argument --sample")
    if args.votes:
        read_table(args.votes)  # a wrong file is reported before a long download
    if args.archive:
        require_file(args.archive, "name an existing zip with --archive")

    target = args.data_dir / ("sample" if args.sample else NAME)
    if not args.force and is_complete(target, args.archive, args.sample):
        print(f"{target} is complete; --force makes it again")
    else:
        require_writable(args.data_dir)
        if args.sample:
            draw_sample(target)
        elif args.archive:
            unpack(args.archive, target)
        else:
            archive = fetch_from_kaggle(args.data_dir, args.force)
            unpack(archive, target)
            archive.unlink()
    if not args.sample:
        add_votes(args.data_dir / VOTES_NAME, args.votes, args.force)
    try:
        layout = find_layout(target)
    except UserError as error:  # the next command needs a flag that says how to read the data
        votes = False
        print(f"to prepare it, more must be said: {error}")
    else:
        votes = not args.sample and mostly_rows(layout.names)
        print(summary(layout))
    print(f"wrote {target}; next: {next_command(args.data_dir, args.sample, votes)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
