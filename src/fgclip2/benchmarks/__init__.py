"""Benchmarks of image-text embeddings in Chinese and English."""
