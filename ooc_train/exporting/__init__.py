"""Models as files that other programs evaluate: ONNX, and a plain JSON."""
