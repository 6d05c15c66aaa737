"""Training of FG-CLIP 2."""
