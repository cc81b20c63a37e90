"""Unpacks the dataset's zip safely: nothing outside the folder, and the whole of it or nothing."""

import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from ferlab.files import UserError


def unpack(archive: Path, target: Path) -> None:
    """Unpacks the dataset's zip to the folder `target`, which appears when it is complete.

    Raises:
        UserError: not a zip, not this dataset, damaged, entries that leave the folder, a full disk.
    """
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
            f"{archive} is damaged or not a zip ({error}); get it again, with: "
            "python download_dataset.py --force, or by hand for --archive"
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
            f"{archive} has no train/<class>/ images, so it is another dataset; "
            "download the right one with: python download_dataset.py"
        )
    return wanted


def replace_folder(new: Path, target: Path) -> None:
    """Renames `new` to `target`, which may exist and is replaced as a whole."""
    old = target.with_name(f".{target.name}.old.tmp")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)
