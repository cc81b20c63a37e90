"""What is reported of a model: metrics, calibration, tables, plots."""
