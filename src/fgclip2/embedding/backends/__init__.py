"""What runs the model of an embedder: torch, or onnxruntime."""
