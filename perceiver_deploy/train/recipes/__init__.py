"""The recipes of the shipped models, one file each."""
