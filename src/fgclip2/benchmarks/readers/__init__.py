"""Readers of benchmarks: from the files that their owners publish to what a benchmark needs."""
