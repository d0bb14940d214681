"""Passes that take out what is superfluous and write the rest in the form that others read."""
