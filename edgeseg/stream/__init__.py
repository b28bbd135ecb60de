"""Frames in, class maps out: sources and sinks chosen by URI, the loop between them, and what keeps it running.

    source -> reader thread -> Channel -> Segmenter -> Channel per sink -> writer thread -> sink

Frames of a file are never dropped (a full Channel holds the reader back); of a live source only the newest one matters
(a full Channel drops the oldest and counts it).
"""
