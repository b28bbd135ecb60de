"""Profiling: what each layer of a network costs on a target."""
