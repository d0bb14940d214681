"""Runtimes on the CPU."""
