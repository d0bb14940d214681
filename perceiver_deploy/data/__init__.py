"""Data sets and preprocessing, one file a modality."""
