"""Baselines that recipes are compared with."""
