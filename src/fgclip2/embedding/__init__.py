"""From images, regions and texts to vectors: the embedder and what it is made of."""

from .embedder import FGClip2Embedder, Skipped

__all__ = ["FGClip2Embedder", "Skipped"]
