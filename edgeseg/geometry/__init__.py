"""Shapes and masks: outlines, pixels, run lengths."""
