"""The part of an embedder that is the same whatever runs its model."""
