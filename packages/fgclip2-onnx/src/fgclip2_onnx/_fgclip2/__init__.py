"""The files of fgclip2 that need neither torch nor transformers, as they are there: links in the repository."""
