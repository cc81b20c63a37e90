"""What every file of the project agrees on. Needs no torch, as ferlab.data.splits does."""

CLASS_NAMES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
IMAGE_SIZE = 48
MEAN, STD = 0.5, 0.5  # of gray / 255: maps [0, 255] to [-1, 1], the same as gray / 127.5 - 1
