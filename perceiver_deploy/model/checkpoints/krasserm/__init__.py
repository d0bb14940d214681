"""Checkpoints of krasserm's perceiver-io."""
