"""Check the package on a GPU, part by part, and write what was found as docs/gpu.md."""
