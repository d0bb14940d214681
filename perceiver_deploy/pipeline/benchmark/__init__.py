"""Benchmark: accuracy and speed of every variant in every runtime."""
