"""Public files that data sets are made of."""
