"""Words of both languages in categories whose members exclude one another, and texts cut into such words."""

from .vocabulary import KINDS, LEXICON, Category, Form, Kind, Vocabulary, Word, load_vocabulary

__all__ = ["KINDS", "LEXICON", "Category", "Form", "Kind", "Vocabulary", "Word", "load_vocabulary"]
