"""Bundles on many devices: fleet.toml, the program that installs one on a device, canaries first, what runs where."""
