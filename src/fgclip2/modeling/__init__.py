"""The FG-CLIP 2 model, configuration and processors: self-contained files that an exported checkpoint carries."""
