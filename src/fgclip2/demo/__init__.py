"""The offline demo: bundled images, Chinese and English queries, one self-contained page."""
