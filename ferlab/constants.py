"""What every file of the project agrees on. Needs no torch."""

from pathlib import Path

CLASS_NAMES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
SPLITS = ("train", "val", "test")
IMAGE_SIZE = 48
MEAN, STD = 0.5, 0.5  # of gray / 255: maps [0, 255] to [-1, 1], the same as gray / 127.5 - 1
FORMS = ("folders", "pixels", "list", "raf-db", "affectnet", "ck+", "fer+")  # for --layout
RATERS = 10  # people who voted on each image (FER+)

DATA_DIR = Path("processed_data")  # of the split files
RESULTS_DIR = Path("results")  # of the user's own runs
ROOT = Path(__file__).resolve().parents[1]  # the project's folder, wherever a script is started
REFERENCE_DIR = ROOT / "reference"  # committed results and weights; votes/ holds those on votes
