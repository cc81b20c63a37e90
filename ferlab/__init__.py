"""What the stage scripts share: data, training loop, metrics, files, plots."""
