"""Models of this package in the evaluators of others: MTEB's image tasks (MIEB) and LAION's CLIP_benchmark."""
