"""Gets the dataset: from Kaggle without an account, from a zip on disk, or drawn by code.

    python download_dataset.py                   # Kaggle, about 120 MB
    python download_dataset.py --archive face-expression-recognition-dataset.zip
    python download_dataset.py --sample          # drawn faces, into data/sample

Unpacks to `data/face-expression-recognition-dataset/images/train/<class>/*.jpg` and so on. What is
complete is left alone; `--force` makes it anew. An interrupted download goes on where it was.
"""

import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections import Counter
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from ferlab import cli
from ferlab.files import UserError, require_writable, told_of

DATASET = "jonathanoheix/face-expression-recognition-dataset"
NAME = DATASET.split("/")[1]
SPLITS = ("train", "validation", "valid", "val", "test")
BY_HAND = (
    f"or fetch the zip from kaggle.com/datasets/{DATASET} by hand and run: "
    "python download_dataset.py --archive FILE.zip"
)
FAULTS = (  # what Kaggle's client prints, the telling ones first, and what it means
    (r"No module named", "kaggle is not fully installed; run: pip install -r requirements.txt"),
    (r"kaggle\.json", "this kaggle client wants a login; run: pip install 'kaggle>=2'"),
    (r"\b404\b|resource was not found", f"Kaggle has no dataset {DATASET}; {BY_HAND}"),
    (r"\b403\b|don't have access", f"Kaggle refused the download; try later, {BY_HAND}"),
    (r"\b429\b|rate limited|Kaggle's side", f"Kaggle is busy; try again later, {BY_HAND}"),
    (r"No space left", "the disk is full; free some space and run the same command again"),
    (
        r"Connect|ReadTimeout|ProxyError|Max retries|IncompleteRead",
        f"the connection to Kaggle failed; run the same command again to go on, {BY_HAND}",
    ),
    # Printed in front of every message where nobody is logged in, so it tells least.
    (r"\b401\b|Authentication required", f"Kaggle refused the login; mend or remove it, {BY_HAND}"),
)


def fetch_from_kaggle(folder: Path, force: bool) -> Path:
    """Downloads the dataset's zip into `folder` with Kaggle's own client; returns its path.

    The client shows its progress, retries, and goes on with the partial file of an earlier run.

    Raises:
        UserError: it failed.
    """
    command = [sys.executable, "-m", "kaggle", "datasets", "download", DATASET, "-p", str(folder)]
    process = subprocess.Popen(
        [*command, "--force"] if force else command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        output = _show_progress(process.stdout.fileno())
        status = process.wait()
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt("run the same command again to go on") from interrupt
    finally:
        process.terminate()
        process.wait()
    archive = folder / f"{NAME}.zip"
    if status != 0 or not archive.is_file():
        raise UserError(explain([line for line in output if line]))
    return archive


def explain(output: list[str]) -> str:
    """Returns one line on why Kaggle's client failed, from the lines it printed."""
    for pattern, meaning in FAULTS:
        for line in reversed(output):
            if re.search(pattern, line):
                return f"{meaning} (Kaggle's client: {line[:160]})"
    last = output[-1] if output else "no message"
    return f"Kaggle's client failed: {last[:160]}; try again, {BY_HAND}"


def _show_progress(descriptor: int) -> list[str]:
    """Passes progress bars (text after a carriage return) on to stderr; returns all other lines."""
    lines, pending = [], ""
    while chunk := os.read(descriptor, 4096):
        *done, pending = re.split(r"(?<=\n)|(?=\r)", pending + chunk.decode(errors="replace"))
        for piece in done:
            if piece.startswith("\r"):
                sys.stderr.write(piece)
                sys.stderr.flush()
            else:
                lines.append(piece.rstrip())
    return [*lines, pending.strip()]


def unpack(archive: Path, target: Path) -> None:
    """Unpacks the dataset's zip to the folder `target`, which appears when it is complete.

    Raises:
        UserError: not a zip, not this dataset, damaged, entries that climb out, or a full disk.
    """
    if not archive.is_file():
        raise UserError(f"{archive} is missing; name an existing zip with --archive")
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as source:
            entries = wanted_entries(source, archive)
            need, free = sum(e.file_size for e in entries), shutil.disk_usage(target.parent).free
            if need > free:
                raise UserError(
                    f"{target} needs {need >> 20} MB and the disk has {free >> 20} MB free; "
                    "free some space, or choose another --data-dir"
                )
            for folder in {path_of(entry).parent for entry in entries}:
                (temporary / folder).mkdir(parents=True, exist_ok=True)
            for entry in tqdm(entries, unit="file", desc="unpacking"):
                (temporary / path_of(entry)).write_bytes(source.read(entry))
        replace_folder(temporary, target)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise UserError(
            f"{archive} is damaged or not a zip ({error}); get it again with: "
            "python download_dataset.py --force"
        ) from error
    except OSError as error:
        raise UserError(f"cannot unpack {archive} to {target}: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def path_of(entry: zipfile.ZipInfo) -> PurePosixPath:
    """Returns an entry's path; some programs on Windows write backslashes into a zip."""
    return PurePosixPath(entry.filename.replace("\\", "/"))


def wanted_entries(source: zipfile.ZipFile, archive: Path) -> list[zipfile.ZipInfo]:
    """Returns the files to unpack: no system files, no nested second copy `images/images/`.

    Raises:
        UserError: the zip is of something else, or a name in it leaves the folder.
    """
    wanted, split_folders = [], set()
    for entry in source.infolist():
        path = path_of(entry)
        if not path.parts:  # "./", the folder itself, as some programs write it
            continue
        is_link = (entry.external_attr >> 16) & 0o170000 == 0o120000
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or is_link:
            raise UserError(f"{archive}: entry {entry.filename!r} leaves the folder; not unpacked")
        junk = path.parts[0] == "__MACOSX" or path.name == ".DS_Store"
        is_folder = entry.filename.endswith(("/", "\\"))
        if is_folder or junk or path.parts[:2] == ("images", "images"):
            continue
        split_folders.update(path.parts[-3:-2])
        wanted.append(entry)
    if not split_folders & {"train", "test"}:
        raise UserError(
            f"{archive} holds no train/<class>/ pictures: it is not {NAME}; "
            "get that with: python download_dataset.py"
        )
    return wanted


def replace_folder(new: Path, target: Path) -> None:
    """Renames `new` to `target`, which may exist; there is no moment with a half of it."""
    old = target.with_name(f".{target.name}.old.tmp")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def draw_sample(target: Path) -> None:
    """Draws the sample dataset and its clip to the folder `target`."""
    from ferlab.sample.dataset import write_sample_clip, write_sample_dataset

    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with told_of(target):
            write_sample_dataset(temporary)
            write_sample_clip(temporary)
            replace_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def summary(folder: Path) -> str:
    """Returns a table of the pictures per split and class."""
    root = folder / "images" if (folder / "images").is_dir() else folder
    splits = [name for name in SPLITS if (root / name).is_dir()]
    counts = {s: Counter(path.parent.name for path in (root / s).glob("*/*")) for s in splits}
    classes = sorted({name for count in counts.values() for name in count})
    lines = [f"{'':10}" + "".join(f"{split:>12}" for split in splits)]
    for name in classes:
        lines.append(f"{name:10}" + "".join(f"{counts[s][name]:12,}" for s in splits))
    lines.append(f"{'all':10}" + "".join(f"{counts[s].total():12,}" for s in splits))
    return "\n".join(lines)


@cli.command
def main(argv: list[str] | None = None) -> int:
    """Runs the stage; returns the exit code."""
    parser = cli.parser(__doc__)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--archive", type=Path, help="unpack this zip instead of downloading")
    source.add_argument("--sample", action="store_true", help="draw the sample faces and a clip")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="the parent folder")
    parser.add_argument("--force", action="store_true", help="redo what is complete")
    args = parser.parse_args(argv)

    target = args.data_dir / ("sample" if args.sample else NAME)
    if target.is_dir() and not args.force:
        print(f"{target} is complete; --force makes it anew")
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
    print(summary(target))
    flags = f" --source {target} --data-dir processed_data/sample" if args.sample else ""
    print(f"wrote {target}; next: python dataset_preparation.py{flags}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
