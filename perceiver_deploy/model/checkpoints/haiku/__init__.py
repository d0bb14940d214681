"""DeepMind's own checkpoints."""
