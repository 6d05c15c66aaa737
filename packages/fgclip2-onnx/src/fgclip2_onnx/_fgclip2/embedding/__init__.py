"""What an embedder does whatever runs its model."""
