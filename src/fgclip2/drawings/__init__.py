"""Bilingual demo data: drawings by several artists under their human-written English and Chinese names.

`python -m fgclip2.drawings --cache DIR` fetches and builds everything; the loaders here read what it built.
"""
