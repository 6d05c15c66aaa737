"""From cosines to probabilities; see fgclip2."""
