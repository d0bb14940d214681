"""The models: one class per task, made of an input adapter, the encoder, a decoder and what its output needs.

One file per modality. A model trains and exports as it is. Its `signature` names inputs, outputs and axes in the order
of `forward`.
"""
