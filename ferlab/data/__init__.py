"""Splits on disk, images, votes, preprocessing and augmentation."""
