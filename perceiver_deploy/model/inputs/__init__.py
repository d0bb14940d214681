"""Input adapters and their configuration."""
