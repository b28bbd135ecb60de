"""Calibration: which frames INT8 takes its ranges from."""
