"""Tune: the fastest way to run a bundle on this machine."""
