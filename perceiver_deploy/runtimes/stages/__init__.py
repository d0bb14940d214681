"""Sessions of several stages: encode once, ask many times."""
