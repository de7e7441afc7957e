"""Benchmarks: how fast the compiled programs run, and how much they compute."""
