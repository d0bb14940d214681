"""Judging artefacts: parity, accuracy, latency, reports."""
