"""Downloads the dataset's zip with Kaggle's own command line, and explains its failures."""

import os
import re
import ssl
import subprocess
import sys
from pathlib import Path

from ferlab.files import UserError

DATASET = "jonathanoheix/face-expression-recognition-dataset"
NAME = DATASET.split("/")[1]
BY_HAND = (
    f"or download the zip from kaggle.com/datasets/{DATASET} by hand and run: "
    "python download_dataset.py --archive FILE.zip"
)
PROXY = (
    "a proxy signs the connection with a certificate that Python does not know; name the file of "
    "the proxy's CA certificates in the environment: REQUESTS_CA_BUNDLE=/path/to/ca.pem"
)
FAULTS = (  # patterns of what Kaggle's client prints, and their meaning; the most specific first
    (r"No module named", "kaggle is not fully installed; run: pip install -r requirements.txt"),
    (r"kaggle\.json", "this kaggle client wants a login; run: pip install 'kaggle>=2'"),
    (r"\b404\b|resource was not found", f"Kaggle has no dataset {DATASET}; {BY_HAND}"),
    (r"\b403\b|don't have access", f"Kaggle refused the download; try later, {BY_HAND}"),
    (r"\b429\b|rate limited|Kaggle's side", f"Kaggle is busy; try again later, {BY_HAND}"),
    (r"No space left", "the disk is full; free some space and run the same command again"),
    (r"CERTIFICATE_VERIFY_FAILED|SSLCertVerificationError|self-signed", f"{PROXY}; {BY_HAND}"),
    (
        r"Connect|ReadTimeout|ProxyError|Max retries|IncompleteRead",
        f"the connection to Kaggle failed; run the same command again to resume, {BY_HAND}",
    ),
    # The client prints this first if no user is logged in, so it is the least specific message.
    (r"\b401\b|Authentication required", f"Kaggle refused the login; remove it, {BY_HAND}"),
)


def fetch_from_kaggle(folder: Path, force: bool) -> Path:
    """Downloads the dataset's zip into `folder` with Kaggle's own client; returns its path.

    The client shows its progress, retries, and resumes from the partial file of an earlier run.

    Raises:
        UserError: it failed.
    """
    command = [sys.executable, "-m", "kaggle", "datasets", "download", DATASET, "-p", str(folder)]
    command += ["--force"] if force else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            output = _show_progress(process.stdout.fileno())
            process.wait()
        except KeyboardInterrupt as interrupt:
            raise KeyboardInterrupt("run the same command again to resume") from interrupt
        finally:
            process.terminate()
            process.wait()
    archive = folder / f"{NAME}.zip"
    if process.returncode != 0 or not archive.is_file():
        raise UserError(explain([line for line in output if line]))
    return archive


def trusted() -> ssl.SSLContext:
    """Returns a context that also trusts the certificates which Kaggle's client is told to trust.

    Raises:
        OSError: the file or folder that REQUESTS_CA_BUNDLE names cannot be read.
    """
    context = ssl.create_default_context()
    if bundle := os.environ.get("REQUESTS_CA_BUNDLE"):
        kind = "capath" if os.path.isdir(bundle) else "cafile"
        context.load_verify_locations(**{kind: bundle})
    return context


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
