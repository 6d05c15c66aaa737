"""The service: embeddings, labels and search over HTTP, and the same as tools of the Model Context Protocol.

Each has an extra of its own, `serve` and `mcp`; `fgclip2.serving.server` and `fgclip2.serving.tools` need them.
"""
