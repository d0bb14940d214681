"""Attention in ONNX: translated, found, reassociated, and which engine fuses it."""
