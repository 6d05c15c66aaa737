"""The back ends that run the model of an embedder: torch, and onnxruntime."""
