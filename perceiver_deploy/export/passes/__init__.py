"""Graph passes over onnx-ir, one per file, and the order they run in."""
