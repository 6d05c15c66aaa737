"""`fgclip2 app`: a web app to try a checkpoint on, in Chinese and English, on one's own machine."""
