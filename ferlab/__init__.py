"""The parts that all scripts have in common."""
