"""Runtimes on NVIDIA GPUs."""
