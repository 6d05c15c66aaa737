"""The documentation site: the pages of this repository as they stand, in both languages, under one navigation."""
