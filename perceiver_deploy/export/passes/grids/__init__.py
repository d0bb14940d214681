"""Attention over a grid of positions, row by row."""
