"""Soak: a long run through scripted faults, judged by objectives."""
