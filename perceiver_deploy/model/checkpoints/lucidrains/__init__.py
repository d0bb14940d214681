"""Checkpoints of lucidrains' perceiver-pytorch."""
