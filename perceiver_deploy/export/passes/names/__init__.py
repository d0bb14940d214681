"""Passes that call axes and nodes by the names of the model and its signature."""
