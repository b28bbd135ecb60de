"""Frames that were collected, out to whoever labels them and back, and where labels and models disagree."""
