"""The models: one class a task, each an input adapter, the encoder, a decoder and what its output needs.

A model trains and exports as it is. Its `signature` names inputs, outputs and axes in the order of `forward`.
"""
