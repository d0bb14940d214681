"""Training: one loop, one recipe a file."""
