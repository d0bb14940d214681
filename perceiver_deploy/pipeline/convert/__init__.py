"""Convert: variants of other precisions, and the accuracy contract."""
