"""What MkDocs calls while it builds the site."""

import re


def on_post_page(output: str, **_) -> str:
    """Leave out the head's links to the other language: beside each the theme looks for a sitemap that is not there."""
    return re.sub(r'<link rel="alternate"[^>]*>', "", output)
