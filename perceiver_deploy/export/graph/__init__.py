"""ONNX graphs: written, read, counted, described."""
