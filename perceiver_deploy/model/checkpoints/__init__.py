"""Reading and writing checkpoints, other people's included."""
