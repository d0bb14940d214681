"""Numeric parity: what is compared, on which inputs, and the verdicts."""
