"""Reading and preparing images, and what a family offers."""
