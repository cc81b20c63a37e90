"""The training loop: recipe, optimizers, checkpoints, devices, processes."""
