"""ONNX models: a walk over the wire format, and what the graph shows each tensor to be."""
