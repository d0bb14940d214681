"""Passes that change how much is computed, not what: to be judged in float64."""
