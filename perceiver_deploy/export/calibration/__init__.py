"""The values of a graph's tensors on data, and the ranges that follow."""
