"""Zones and rules: where in the frame which class makes an event, and what is kept of it."""
