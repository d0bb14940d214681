"""Accuracy: metrics, what a candidate lost against eager, and the contract on it."""
