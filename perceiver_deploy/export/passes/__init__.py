"""Graph passes over onnx-ir, one a file, and the order they run in."""
