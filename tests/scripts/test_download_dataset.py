"""Downloading: zips of every kind, votes, and Kaggle's real client against a local stand-in."""

import http.server
import io
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tarfile
import threading
import time
import urllib.error
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dataset_preparation
import download_dataset
from conftest import ROOT, striped_face
from ferlab.data import archive as archive_module
from ferlab.data import kaggle_client, votes
from ferlab.data.complete import RECORD
from ferlab.data.splits import CLASS_NAMES

NAME = download_dataset.NAME
VOTES = download_dataset.VOTES_NAME
NO_SERVER = "http://127.0.0.1:1/votes.csv"
ROW = "Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0\n"
TABLE = (votes.HEADER + "\n" + votes.ROWS * ROW).encode()
TLS = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate in chain"
OLDER = TABLE.replace(b"fer0000000", b"fer0000001")


@pytest.fixture(autouse=True)
def no_votes_from_the_internet(monkeypatch):
    """Lets the download of votes fail at once, except where a test has its own server."""
    monkeypatch.setattr(download_dataset, "VOTES_URL", NO_SERVER)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def make_zip(path, extra=(), nested=True, size=40):
    """Writes a tiny zip in Kaggle's layout, its nested second copy included."""
    with zipfile.ZipFile(path, "w") as archive:
        for prefix in ("images/images/", "images/") if nested else ("images/",):
            for split in ("train", "validation"):
                for name in CLASS_NAMES:
                    archive.writestr(f"{prefix}{split}/{name}/1.jpg", os.urandom(size))
        for entry, content in extra:
            archive.writestr(entry, content)
    return path


@pytest.fixture
def archive(tmp_path):
    return make_zip(tmp_path / "faces.zip")


def run(*args):
    return download_dataset.main([str(a) for a in args])


def refused(capsys, *args):
    """Runs the script, which must fail; returns its error line."""
    assert run(*args) == 1
    lines = [x for x in capsys.readouterr().err.splitlines() if x and not x.startswith("\r")]
    errors = [line for line in lines if "error: " in line]
    assert len(errors) == 1 and "Traceback" not in "".join(lines)
    return errors[0]


def content(folder):
    """Returns the files by their path, without the record that the folder is complete."""
    files = (path for path in folder.rglob("*.*") if path.name != RECORD)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_archive_is_unpacked_without_the_second_copy(capsys, archive, tmp_path):
    junk = [("__MACOSX/images/x", b""), ("images/.DS_Store", b"")]
    make_zip(archive, junk)
    assert run("--archive", archive, "--data-dir", tmp_path / "data") == 0
    files = content(tmp_path / "data" / NAME)
    assert len(files) == 14 and "images/train/happy/1.jpg" in files
    with zipfile.ZipFile(archive) as source:
        assert files["images/train/sad/1.jpg"] == source.read("images/train/sad/1.jpg")
    assert archive.exists(), "a person's zip is left alone"
    out = capsys.readouterr().out
    assert "next: python dataset_preparation.py" in out and "validation" in out
    assert [p.name for p in (tmp_path / "data").iterdir()] == [NAME]


def test_names_as_other_programs_write_them(archive, tmp_path):
    with zipfile.ZipFile(archive) as source:
        entries = [(name, source.read(name)) for name in source.namelist()]
    with zipfile.ZipFile(archive, "w") as target:  # bsdtar: "./"; old .NET: backslashes
        for folder in ("./", "./images/", "images\\train\\happy\\"):
            target.writestr(folder, b"")
        for number, (name, pixels) in enumerate(entries):
            other = name.replace("/", "\\") if number % 2 else f"./{name}"
            target.writestr(other, pixels)
    assert run("--archive", archive, "--data-dir", tmp_path / "data") == 0
    assert content(tmp_path / "data" / NAME) == {
        name: pixels for name, pixels in entries if not name.startswith("images/images/")
    }


def test_complete_is_skipped_and_force_redoes(capsys, archive, tmp_path):
    data = tmp_path / "data"
    assert run("--archive", archive, "--data-dir", data) == 0
    first = content(data / NAME)
    make_zip(archive)
    assert run("--archive", archive, "--data-dir", data) == 0
    assert "is complete; --force makes it again" in capsys.readouterr().out
    assert content(data / NAME) == first
    assert run("--archive", archive, "--data-dir", data, "--force") == 0
    assert content(data / NAME) != first
    assert [p.name for p in data.iterdir()] == [NAME]


def test_empty_and_half_filled_folders_are_filled(capsys, archive, tmp_path, monkeypatch):
    target = tmp_path / "data" / NAME
    target.mkdir(parents=True)
    assert run("--archive", archive, "--data-dir", tmp_path / "data") == 0
    whole = content(target)
    assert len(whole) == 14
    for record in (True, False):
        shutil.rmtree(target / "images" / "validation")
        (target / "images" / "train" / "sad" / "1.jpg").write_bytes(b"half")
        if not record:
            (target / RECORD).unlink()
        capsys.readouterr()
        assert run("--archive", archive, "--data-dir", tmp_path / "data") == 0
        assert f"{target} is not complete: 7 files" in capsys.readouterr().out
        assert content(target) == whole

    def fetch(folder, force):
        return Path(shutil.copy(archive, folder / "fetched.zip"))

    monkeypatch.setattr(download_dataset, "fetch_from_kaggle", fetch)
    (target / "images" / "train" / "sad" / "1.jpg").unlink()
    assert run("--data-dir", tmp_path / "data") == 0
    assert "13 files, 520 bytes of 14 files, 560 bytes" in capsys.readouterr().out
    assert content(target) == whole
    shutil.rmtree(target)
    target.mkdir()
    assert run("--data-dir", tmp_path / "data") == 0
    assert content(target) == whole


def test_what_is_complete_is_unpacked_once(archive, tmp_path, monkeypatch):
    unpacked = []
    monkeypatch.setattr(
        download_dataset,
        "unpack",
        lambda source, target: unpacked.append(target) or archive_module.unpack(source, target),
    )
    for _ in range(3):
        assert run("--archive", archive, "--data-dir", tmp_path / "data") == 0
        assert run("--data-dir", tmp_path / "data") == 0
    (tmp_path / "data" / NAME / RECORD).unlink()
    (tmp_path / "data" / NAME / "images" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "data" / NAME / "images" / "train" / "sad" / "Thumbs.db").write_bytes(b"x")
    assert run("--archive", archive, "--data-dir", tmp_path / "data") == 0
    assert len(unpacked) == 1


def test_a_folder_of_something_else_is_not_replaced(capsys, archive, tmp_path, monkeypatch):
    target = tmp_path / "data" / NAME
    (target / "images" / "train" / "happy").mkdir(parents=True)
    mine = target / "images" / "train" / "happy" / "mine.jpg"
    mine.symlink_to("nothing")
    line = refused(capsys, "--archive", archive, "--data-dir", tmp_path / "data")
    assert "happy/mine.jpg is not from faces.zip" in line
    mine.unlink()
    mine.write_bytes(b"x")
    line = refused(capsys, "--archive", archive, "--data-dir", tmp_path / "data")
    assert "happy/mine.jpg is not from faces.zip; --force" in line
    line = refused(capsys, "--data-dir", tmp_path / "data")
    assert "has 1 files, and Kaggle's dataset 35,887" in line
    assert "--archive FILE.zip" in line and "--force" in line
    assert list(content(target)) == ["images/train/happy/mine.jpg"]
    for split in ("train", "validation"):
        for name in CLASS_NAMES:
            (target / "images" / split / name).mkdir(parents=True, exist_ok=True)
            (target / "images" / split / name / "1.jpg").write_bytes(b"x")
    monkeypatch.setattr(archive_module, "KAGGLE_IMAGES", 15)
    assert run("--data-dir", tmp_path / "data") == 0, "by hand, and all of it"


@pytest.mark.parametrize("wrap", ["wrap", "wrap/images", "images/images", "a/images/images"])
def test_wrapped_zip_is_prepared_afterwards(capsys, tmp_path, monkeypatch, wrap):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for split, images in (("train", 4), ("validation", 4)):
            for label, name in enumerate(CLASS_NAMES):
                for number in range(images):
                    file = io.BytesIO()
                    Image.fromarray(striped_face(label, rng)).save(file, "PNG")
                    path = f"{split}/{name}/{number}.png"
                    archive.writestr(f"{wrap}/{path}", file.getvalue())
                    archive.writestr(f"{wrap}/{wrap.split('/')[-1]}/{path}", file.getvalue())
    assert run("--archive", "faces.zip") == 0
    printed = capsys.readouterr().out
    assert "class folders within train, validation:" in printed
    assert printed.splitlines()[-1].endswith("; next: python dataset_preparation.py")
    assert len([name for name in content(Path("data") / NAME) if name.endswith(".png")]) == 56
    assert dataset_preparation.main(["--quiet"]) == 0
    assert "files: train 28, val 28" in capsys.readouterr().out


def test_zips_of_other_forms(capsys, tmp_path):
    with zipfile.ZipFile(tmp_path / "fer.zip", "w") as archive:
        rows = [f"{label},1 2 3 4,Training\n" for label in range(7)]
        archive.writestr("fer2013/fer2013.csv", "emotion,pixels,Usage\n" + "".join(rows))
    assert run("--archive", tmp_path / "fer.zip", "--data-dir", tmp_path / "fer") == 0
    assert "CSV of pixels, fer2013.csv:" in capsys.readouterr().out
    with zipfile.ZipFile(tmp_path / "numbers.zip", "w") as archive:
        for number in range(8):
            archive.writestr(f"train/{number}/1.jpg", b"x")
            archive.writestr(f"test/{number}/1.jpg", b"x")
    assert run("--archive", tmp_path / "numbers.zip", "--data-dir", tmp_path / "numbers") == 0
    assert "to prepare it, more must be said" in (printed := capsys.readouterr().out)
    assert "--class-map affectnet (" in printed


def test_failed_force_keeps_the_old_dataset(capsys, archive, tmp_path):
    data = tmp_path / "data"
    run("--archive", archive, "--data-dir", data)
    first = content(data / NAME)
    archive.write_bytes(archive.read_bytes()[:-200])
    refused(capsys, "--archive", archive, "--data-dir", data, "--force")
    assert content(data / NAME) == first
    assert [p.name for p in data.iterdir()] == [NAME]


def broken(path, kind):
    """Turns a good zip into a bad one."""
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "text":
        path.write_text("this is no zip")
    elif kind == "crc":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("images/train/happy/1.jpg", b"A" * 99)
        path.write_bytes(path.read_bytes().replace(b"A" * 99, b"A" * 98 + b"B"))
    elif kind == "name":
        make_zip(path, [("images/Ü.jpg", b"")])
        path.write_bytes(path.read_bytes().replace("Ü".encode(), b"\xff\xff"))
    elif kind in ("bzip2", "lzma"):
        with zipfile.ZipFile(path, "w", getattr(zipfile, f"ZIP_{kind.upper()}")) as archive:
            archive.writestr("images/train/happy/1.jpg", os.urandom(500))
        data = bytearray(path.read_bytes())
        data[80:90] = bytes(10)
        path.write_bytes(data)
    elif kind == "encrypted":
        make_zip(path, nested=False)
        data = bytearray(path.read_bytes())
        for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            at = data.find(mark)
            while at >= 0:
                data[at + offset] |= 1
                at = data.find(mark, at + 4)
        path.write_bytes(data)


def test_tar_archive_is_told_from_a_damaged_zip(capsys, archive, tmp_path):
    with tarfile.open(tmp_path / "fer2013.tar.gz", "w:gz") as tar:
        tar.add(archive, "fer2013/faces.zip")
    line = refused(capsys, "--archive", tmp_path / "fer2013.tar.gz", "--data-dir", tmp_path / "a")
    assert "fer2013.tar.gz is a tar archive; unpack it with tar -xf" in line


@pytest.mark.parametrize("kind", ["truncated", "text", "crc", "encrypted", "name", "bzip2", "lzma"])
def test_damaged_zip(capsys, archive, tmp_path, kind):
    broken(archive, kind)
    line = refused(capsys, "--archive", archive, "--data-dir", tmp_path / "data")
    assert "faces.zip is damaged or not a zip" in line and "download_dataset.py" in line
    assert not list((tmp_path / "data").iterdir())


LINK = zipfile.ZipInfo("images/train/happy/link.jpg")
LINK.external_attr = 0o120777 << 16


@pytest.mark.parametrize(
    "entry",
    ["../evil.jpg", "/etc/evil.jpg", "images/../../evil.jpg", "..\\evil.jpg", "C:\\evil", LINK],
)
def test_entry_that_climbs_out(capsys, archive, tmp_path, entry):
    make_zip(archive, [(entry, b"x")])
    line = refused(capsys, "--archive", archive, "--data-dir", tmp_path / "data")
    assert "leaves the folder; not unpacked" in line
    assert not list((tmp_path / "data").iterdir())
    assert not list(tmp_path.rglob("evil*"))


def test_foreign_and_missing_zip(capsys, tmp_path):
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("letters/a.txt", "a")
    line = refused(capsys, "--archive", other, "--data-dir", tmp_path / "data")
    assert "other.zip holds no dataset of a known form" in line
    assert not list((tmp_path / "data").iterdir())
    for wrong, fault in (
        ("none.zip", "is missing"),
        ("x" * 300, "is missing"),
        (".", "is not a file"),
    ):
        line = refused(capsys, "--archive", tmp_path / wrong, "--data-dir", tmp_path / "data")
        assert f"{tmp_path / wrong} {fault}; name an existing zip" in line


def test_full_disk(capsys, archive, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
        line = refused(capsys, "--archive", archive, "--data-dir", tmp_path / "data")
    assert "the disk has 0 MB free" in line

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    line = refused(capsys, "--archive", archive, "--data-dir", tmp_path / "data")
    assert "No space left" in line
    assert not list((tmp_path / "data").iterdir())


def test_leftovers_of_a_killed_run_do_not_count(archive, tmp_path):
    left = tmp_path / "data" / f".{NAME}.tmp" / "images" / "train" / "happy"
    left.mkdir(parents=True)
    (left / "half.jpg").write_bytes(b"")
    assert run("--archive", archive, "--data-dir", tmp_path / "data") == 0
    assert len(content(tmp_path / "data" / NAME)) == 14
    assert [p.name for p in (tmp_path / "data").iterdir()] == [NAME]


def test_sample(capsys, tmp_path, monkeypatch):
    from ferlab.sample import dataset as sample_dataset

    monkeypatch.setattr(sample_dataset, "HOLD", 1)
    monkeypatch.setattr(sample_dataset, "CHANGE", 1)
    whole = sample_dataset.write_sample_dataset
    monkeypatch.setattr(
        sample_dataset,
        "write_sample_dataset",
        lambda folder: whole(folder, {"train": 14, "validation": 14}),
    )
    assert run("--sample", "--data-dir", tmp_path) == 0
    assert "--source" in capsys.readouterr().out
    names = {RECORD, "images", "clip.mp4", "clip.csv"}
    assert {path.name for path in (tmp_path / "sample").iterdir()} == names
    assert run("--sample", "--data-dir", tmp_path) == 0
    assert "is complete; --force makes it again" in capsys.readouterr().out
    next((tmp_path / "sample" / "images" / "train" / "sad").iterdir()).unlink()
    assert run("--sample", "--data-dir", tmp_path) == 0
    assert "sample is not complete: 29 files" in capsys.readouterr().out
    assert len(content(tmp_path / "sample")) == 30

    def fails(folder):
        folder.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sample_dataset, "write_sample_dataset", fails)
    assert "No space left" in refused(capsys, "--sample", "--data-dir", tmp_path, "--force")
    assert (tmp_path / "sample" / "clip.csv").exists(), "the older sample stays"
    assert [p.name for p in tmp_path.iterdir()] == ["sample"]


# -- the raters' votes ------------------------------------------------------------------------


@pytest.fixture
def votes_server(monkeypatch):
    """A stand-in for GitHub: answers `server.answer` = (status, body, announced length)."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            status, body, length = self.server.answer
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answer = (200, TABLE, len(TABLE))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}/{VOTES}"
    monkeypatch.setattr(download_dataset, "VOTES_URL", address)
    yield server
    server.shutdown()
    server.server_close()


def warning(capsys):
    """Returns the one warning on stderr."""
    lines = [x for x in capsys.readouterr().err.splitlines() if "warning: " in x]
    assert len(lines) == 1
    return lines[0]


def test_votes_are_downloaded_beside_the_dataset(capsys, votes_server, archive, tmp_path):
    data = tmp_path / "data"
    assert run("--archive", archive, "--data-dir", data) == 0
    assert (data / VOTES).read_bytes() == TABLE
    captured = capsys.readouterr()
    assert "warning" not in captured.err
    command = f"python dataset_preparation.py --source {data / NAME} --votes {data / VOTES}"
    assert captured.out.splitlines()[-1] == f"wrote {data / NAME}; next: {command}"
    default = download_dataset.next_command(Path("data"), sample=False)
    assert default == "python dataset_preparation.py"
    assert sorted(p.name for p in data.iterdir()) == [NAME, VOTES]


def test_votes_that_are_there_are_kept_without_force(capsys, votes_server, archive, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / VOTES).write_bytes(OLDER)
    assert run("--archive", archive, "--data-dir", data) == 0
    assert (data / VOTES).read_bytes() == OLDER
    assert run("--archive", archive, "--data-dir", data, "--force") == 0
    assert (data / VOTES).read_bytes() == TABLE
    (data / VOTES).write_bytes(OLDER)
    votes_server.answer = (503, b"", 0)
    assert run("--archive", archive, "--data-dir", data, "--force") == 0
    assert (data / VOTES).read_bytes() == OLDER
    assert "is kept" in warning(capsys)


@pytest.mark.parametrize("damaged", [None, TABLE[:-1000]])
def test_missing_or_damaged_votes_are_downloaded_again(votes_server, archive, tmp_path, damaged):
    data = tmp_path / "data"
    votes_server.answer = (503, b"", 0)
    assert run("--archive", archive, "--data-dir", data) == 0
    assert not (data / VOTES).exists()
    if damaged:
        (data / VOTES).write_bytes(damaged)
    votes_server.answer = (200, TABLE, len(TABLE))
    assert run("--data-dir", data) == 0
    assert (data / VOTES).read_bytes() == TABLE


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "Connection refused"),
        ((404, b"404: Not Found", 14), "404"),
        ((200, TABLE, 2 * len(TABLE)), "IncompleteRead"),
        ((200, TABLE[:40], 40), "not FER+'s table"),
        ((200, b"<html>log in first</html>", 25), "not FER+'s table"),
        ((200, b"", 0), "not FER+'s table"),
    ],
)
def test_votes_that_do_not_come(capsys, request, archive, tmp_path, answer, reason):
    if answer:
        request.getfixturevalue("votes_server").answer = answer
    assert run("--archive", archive, "--data-dir", tmp_path / "data") == 0
    line = warning(capsys)
    assert reason in line and "--targets votes" in line and "--votes FILE" in line
    assert [p.name for p in (tmp_path / "data").iterdir()] == [NAME]


def test_votes_behind_a_proxy_that_signs_connections(capsys, archive, tmp_path, monkeypatch):
    data = tmp_path / "data"

    def untrusted(url, timeout, context):
        raise urllib.error.URLError(ssl.SSLCertVerificationError(1, TLS))

    with monkeypatch.context() as patch:
        patch.setattr("urllib.request.urlopen", untrusted)
        assert run("--archive", archive, "--data-dir", data) == 0
    assert "REQUESTS_CA_BUNDLE=/path/to/ca.pem" in warning(capsys)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    assert run("--data-dir", data) == 0
    assert "No such file" in warning(capsys)
    loaded = []
    with monkeypatch.context() as patch:
        locate = lambda context, **given: loaded.append(given)  # noqa: E731
        patch.setattr(ssl.SSLContext, "load_verify_locations", locate)
        for bundle in (archive, data):
            patch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
            kaggle_client.trusted()
    assert loaded == [{"cafile": str(archive)}, {"capath": str(data)}]


def test_votes_at_hand(capsys, archive, tmp_path):
    data, table = tmp_path / "data", tmp_path / "table.csv"
    for content in (TABLE, TABLE.replace(b"\n", b"\r\n")):
        table.write_bytes(content)
        assert run("--archive", archive, "--data-dir", data, "--votes", table) == 0
        assert (data / VOTES).read_bytes() == content, "a file that is named replaces the older one"
    assert run("--archive", archive, "--data-dir", data, "--votes", data / VOTES) == 0
    assert (data / VOTES).read_bytes() == content
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", [None, b"", b"a,b\n1,2\n", b"emotion,pixels,Usage\n", b"\xff\x00"]
)
def test_wrong_votes_file_is_refused_before_any_download(capsys, archive, tmp_path, content):
    table = tmp_path / "table.csv"
    if content is not None:
        table.write_bytes(content)
    line = refused(capsys, "--archive", archive, "--data-dir", tmp_path / "data", "--votes", table)
    assert "table.csv" in line and "python download_dataset.py" in line
    assert not (tmp_path / "data").exists()


def test_real_votes_table_is_taken(real_votes, archive, tmp_path):
    assert run("--archive", archive, "--data-dir", tmp_path, "--votes", real_votes) == 0
    assert (tmp_path / VOTES).read_bytes() == real_votes.read_bytes()


def test_sample_has_no_votes(capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        run("--sample", "--votes", tmp_path / "table.csv")
    assert stop.value.code == 2


# -- Kaggle's own client, as a subprocess, against a server on this machine --------------------


class Kaggle(http.server.BaseHTTPRequestHandler):
    """As much of Kaggle's web API as `kaggle datasets download` asks for."""

    protocol_version = "HTTP/1.1"
    zip_bytes = b""
    status = 200
    delay = 0.0
    seen: list = []  # noqa: RUF012
    port = 1  # where nothing listens

    def log_message(self, *args):
        pass

    def reply(self, body, status=200, **headers):
        self.send_response(status)
        for key, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        Kaggle.seen.append((self.path, dict(self.headers)))
        if Kaggle.status != 200:
            body = json.dumps({"code": Kaggle.status, "message": "the stand-in says no"}).encode()
            self.reply(body, Kaggle.status, Content_Type="application/json")
        elif self.path.endswith("DownloadDataset"):
            self.reply(b"", 302, Location=f"http://{self.headers['Host']}/storage/faces.zip")
        else:
            self.reply(b'{"info": {"licenses": []}}', Content_Type="application/json")

    def do_GET(self):
        Kaggle.seen.append((self.path, dict(self.headers)))
        whole = Kaggle.zip_bytes
        start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
        self.send_response(206 if start else 200)
        for key, value in {
            "Content-Length": len(whole) - start,
            "Accept-Ranges": "bytes",
            "ETag": '"one"',
            "Last-Modified": "Wed, 01 Jan 2020 00:00:00 GMT",
            "Content-Type": "application/zip",
            **({"Content-Range": f"bytes {start}-{len(whole) - 1}/{len(whole)}"} if start else {}),
        }.items():
            self.send_header(key, str(value))
        self.end_headers()
        rest = io.BytesIO(whole[start:])
        try:
            while piece := rest.read(65536):
                self.wfile.write(piece)
                time.sleep(Kaggle.delay)
        except OSError:
            pass


@pytest.fixture(scope="module")
def large_zip(tmp_path_factory):
    return make_zip(tmp_path_factory.mktemp("zip") / "faces.zip", size=200_000).read_bytes()


@pytest.fixture
def kaggle(large_zip):
    """The stand-in for Kaggle's servers, on a free port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Kaggle)
    Kaggle.port = server.server_address[1]
    Kaggle.zip_bytes = large_zip
    Kaggle.status, Kaggle.delay, Kaggle.seen = 200, 0.0, []
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield Kaggle
    server.shutdown()
    server.server_close()
    Kaggle.port = 1


def environment(home, **extra):
    """The client's environment: nobody is logged in, Kaggle is this machine, GitHub is not there.

    The client's own LOCALHOST setting fixes port 80; as its HTTP proxy the stand-in answers there.
    """
    drop = ("KAGGLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
    kept = {k: v for k, v in os.environ.items() if not k.upper().startswith(drop)}
    home.mkdir(exist_ok=True)
    return {
        **kept,
        "HOME": str(home),
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        "HTTP_PROXY": f"http://127.0.0.1:{Kaggle.port}",
        "HTTPS_PROXY": "http://127.0.0.1:1",  # no votes from the internet
        **extra,
    }


def download(tmp_path, *flags, **extra):
    command = [sys.executable, ROOT / "download_dataset.py", "--data-dir", tmp_path / "data"]
    env = environment(tmp_path / "home", **extra)
    return subprocess.run([*command, *flags], env=env, capture_output=True, text=True, timeout=200)


def assert_error(result, *parts):
    errors = [x for x in result.stderr.replace("\r", "\n").splitlines() if x.startswith("error: ")]
    assert result.returncode == 1 and len(errors) == 1, result.stderr
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in errors[0]


def test_kaggle_without_an_account(kaggle, tmp_path):
    result = download(tmp_path)
    assert result.returncode == 0, result.stderr
    assert len(content(tmp_path / "data" / NAME)) == 14
    assert "100%" in result.stderr and "unpacking" in result.stderr
    assert not any("Authorization" in headers for _, headers in kaggle.seen)
    assert [p.name for p in (tmp_path / "data").iterdir()] == [NAME], "the zip is removed"
    before = len(kaggle.seen)
    assert "is complete" in download(tmp_path).stdout
    assert len(kaggle.seen) == before, "what is complete is not asked for again"


def test_interrupted_download_is_resumed(kaggle, tmp_path):
    kaggle.delay = 0.05
    command = [sys.executable, ROOT / "download_dataset.py", "--data-dir", tmp_path / "data"]
    process = subprocess.Popen(
        command,
        env=environment(tmp_path / "home"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    part = tmp_path / "data" / f"{NAME}.zip"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 1_000_000):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130 and "run the same command again" in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "data" / NAME).exists()
    have = part.stat().st_size
    assert 0 < have < len(kaggle.zip_bytes)
    kaggle.delay, kaggle.seen = 0.0, []
    result = download(tmp_path)
    assert result.returncode == 0, result.stderr
    ranges = [headers["Range"] for _, headers in kaggle.seen if "Range" in headers]
    assert ranges == [f"bytes={have}-"]
    assert len(content(tmp_path / "data" / NAME)) == 14


def test_kaggle_refuses(kaggle, tmp_path):
    kaggle.status = 403
    assert_error(download(tmp_path), "refused the download", "--archive FILE.zip")
    assert not list((tmp_path / "data").iterdir())


LOGIN = "Authentication required to call the Kaggle API."


@pytest.mark.parametrize(
    ("lines", "message"),
    [  # as the client prints them for statuses 401, 404, 429, 503
        ([LOGIN], "refused the login"),
        ([LOGIN, "The resource was not found. Check the spelling."], "has no dataset"),
        ([LOGIN, "You have been rate limited. Wait a little while."], "is busy"),
        (["This is a problem on Kaggle's side, not with your command."], "is busy"),
        ([LOGIN, TLS], "REQUESTS_CA_BUNDLE=/path/to/ca.pem"),
        (["Something", "else"], "Kaggle's client failed: else"),
        ([], "Kaggle's client failed: no message"),
    ],
)
def test_meaning_of_what_the_client_prints(lines, message):
    explanation = kaggle_client.explain(lines)
    assert message in explanation and "--archive FILE.zip" in explanation


def test_no_network(tmp_path):
    result = download(tmp_path)  # nothing listens on the port
    assert_error(result, "connection to Kaggle failed", "--archive FILE.zip")


@pytest.mark.parametrize(
    ("module", "fault", "parts"),
    [
        ("__init__", "No module named kaggle", ["not fully installed", "pip install -r"]),
        ("__main__", "Could not find kaggle.json.", ["wants a login", "kaggle>=2"]),
    ],
)
def test_client_that_is_not_installed_or_too_old(tmp_path, module, fault, parts):
    stand_in = tmp_path / "modules" / "kaggle"
    stand_in.mkdir(parents=True)
    (stand_in / "__init__.py").write_text("")
    (stand_in / f"{module}.py").write_text(f"raise OSError({fault!r})")
    assert_error(download(tmp_path, PYTHONPATH=str(stand_in.parent)), *parts)


@pytest.mark.slow
def test_real_archive(real_archive, tmp_path):
    assert run("--archive", real_archive, "--data-dir", tmp_path) == 0
    root = tmp_path / NAME / "images"
    assert sum(1 for _ in root.glob("train/*/*.jpg")) == 28_548
    assert sum(1 for _ in root.glob("validation/*/*.jpg")) == 3_579
