"""Validate: numeric parity of every variant in every runtime."""
