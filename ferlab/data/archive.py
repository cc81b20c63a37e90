"""Unpacks a dataset's zip safely: nothing outside the folder, and the whole dataset or nothing."""

import lzma
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from ferlab.data.complete import content_of, is_of_system, recorded, sizes_of, write_record
from ferlab.data.layouts import TAR_REMEDY, NoDatasetError, find_layout
from ferlab.files import UserError

KAGGLE_IMAGES = 28_821 + 7_066  # of train and validation
# What zipfile raises at damaged bytes, names that are no UTF-8, encryption, unknown compression.
DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, RuntimeError)


def unpack(archive: Path, target: Path) -> None:
    """Unpacks a dataset's zip to the folder `target`, which is made or replaced at the end.

    Raises:
        UserError: the file is not a zip, is damaged, holds no dataset or an entry that leaves the
            folder; or the disk is full.
    """
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with opened(archive) as source:
            entries = wanted_entries(source, archive)
            need, free = sum(e.file_size for e in entries), shutil.disk_usage(target.parent).free
            if need > free:
                raise UserError(
                    f"{target} needs {need >> 20} MB and the disk has {free >> 20} MB free; "
                    "free some space, or choose another --data-dir"
                )
            temporary.mkdir()
            for folder in {path_of(entry).parent for entry in entries}:
                (temporary / folder).mkdir(parents=True, exist_ok=True)
            for entry in tqdm(entries, unit="file", desc="unpacking"):
                (temporary / path_of(entry)).write_bytes(source.read(entry))
        require_dataset(temporary, archive)
        write_record(temporary)
        replace_folder(temporary, target)
    except DAMAGE as error:
        raise damaged(archive, error) from error
    except OSError as error:
        if error.errno is None:  # damaged bzip2 data
            raise damaged(archive, error) from error
        raise UserError(f"cannot unpack {archive} to {target}: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def opened(archive: Path) -> zipfile.ZipFile:
    """Returns the open zip.

    Raises:
        UserError: it is not a zip, or cannot be read.
    """
    try:
        return zipfile.ZipFile(archive)
    except DAMAGE as error:
        raise damaged(archive, error) from error
    except OSError as error:
        raise UserError(f"cannot read {archive}: {error.strerror}") from error


def damaged(archive: Path, error: Exception) -> UserError:
    """Returns the error for a zip that cannot be read."""
    if tarfile.is_tarfile(archive):
        return UserError(f"{archive} {TAR_REMEDY}")
    return UserError(
        f"{archive} is damaged or not a zip ({error}); get it again, with: "
        "python download_dataset.py --force, or by hand for --archive"
    )


def require_dataset(folder: Path, archive: Path) -> None:
    """Raises a UserError if an unpacked folder holds no dataset.

    One that can be understood in several ways is accepted: the preparation asks for the flag.
    """
    try:
        find_layout(folder)
    except NoDatasetError as error:
        raise UserError(
            f"{archive} holds no dataset of a known form (docs/data.md lists them); "
            "download the default one with: python download_dataset.py"
        ) from error
    except UserError:
        pass


def path_of(entry: zipfile.ZipInfo) -> PurePosixPath:
    """Returns an entry's path with slashes; some Windows programs write backslashes."""
    return PurePosixPath(entry.filename.replace("\\", "/"))


def wanted_entries(source: zipfile.ZipFile, archive: Path) -> list[zipfile.ZipInfo]:
    """Returns the files to unpack, without system files and nested copies as `images/images/`.

    Raises:
        UserError: a name in the zip leaves the folder.
    """
    wanted = []
    for entry in source.infolist():
        path = path_of(entry)
        if not path.parts:  # "./", the folder itself, as some programs write it
            continue
        is_link = (entry.external_attr >> 16) & 0o170000 == 0o120000
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or is_link:
            raise UserError(f"{archive}: entry {entry.filename!r} leaves the folder; not unpacked")
        junk = path.parts[0] == "__MACOSX" or is_of_system(path.name)
        if not (junk or entry.filename.endswith(("/", "\\"))):
            wanted.append(entry)
    names = {path_of(entry) for entry in wanted}
    return [entry for entry in wanted if outer_path(path_of(entry)) not in names]


def outer_path(path: PurePosixPath) -> PurePosixPath | None:
    """Returns the path without a folder that repeats its parent's name; None if there is none.

    For `wrap/images/images/train/1.jpg` it is `wrap/images/train/1.jpg`.
    """
    for index in range(1, len(path.parts) - 1):
        if path.parts[index] == path.parts[index - 1]:
            return PurePosixPath(*path.parts[:index], *path.parts[index + 1 :])
    return None


def is_unpacked(archive: Path, target: Path) -> bool:
    """Returns whether `target` has the files of a zip, by name and size.

    Raises:
        UserError: the zip cannot be read; or `target` has another file, which would be lost.
    """
    with opened(archive) as source:
        sizes = {str(path_of(e)): e.file_size for e in wanted_entries(source, archive)}
    there = sizes_of(target)
    other = next((name for name in there if name not in sizes), None)
    if other is not None:
        raise UserError(
            f"{target / other} is not from {archive.name}; --force replaces the whole folder, or "
            "choose another --data-dir"
        )
    return there == sizes


def is_complete(target: Path, archive: Path | None, sample: bool) -> bool:
    """Returns whether `target` holds the whole dataset; prints what is missing if it is a part.

    The files are compared with the zip `archive` by name and size; without it, with the record by
    number and size; without a record, with Kaggle's dataset by number.

    Raises:
        UserError: the folder holds something else, which would be lost.
    """
    if not target.is_dir() or not any(target.iterdir()):
        return False
    there = content_of(target)
    if archive:
        complete = is_unpacked(archive, target)
        wanted = ""
    elif (record := recorded(target)) is not None:
        complete = there == record
        wanted = f" of {record.files:,} files, {record.size:,} bytes"
    elif sample:
        complete, wanted = False, ""
    elif not (complete := _has_all_of_kaggle(target)):
        raise UserError(
            f"{target} has {there.files:,} files, and Kaggle's dataset {KAGGLE_IMAGES:,}; check it "
            "against its zip with --archive FILE.zip, replace it with --force, or use it as it is "
            "with: python dataset_preparation.py"
        )
    if not complete:
        print(f"{target} is not complete: {there.files:,} files, {there.size:,} bytes{wanted}")
    return complete


def _has_all_of_kaggle(target: Path) -> bool:
    try:
        return len(find_layout(target).names) == KAGGLE_IMAGES
    except UserError:
        return False


def replace_folder(new: Path, target: Path) -> None:
    """Renames `new` to `target`, which may exist and is replaced as a whole."""
    old = target.with_name(f".{target.name}.old.tmp")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)
