"""Soak: a long run through scripted faults, compared with objectives."""
