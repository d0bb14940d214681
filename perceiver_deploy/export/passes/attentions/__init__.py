"""Passes that write attentions for an engine."""
