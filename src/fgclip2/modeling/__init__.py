"""The FG-CLIP 2 model, its configuration and its processors: self-contained files that an exported checkpoint carries."""
