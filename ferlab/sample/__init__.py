"""The sample: a drawn dataset and clip, for machines without the real dataset or a camera."""
