"""The data sets of the shipped models."""
