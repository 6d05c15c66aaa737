"""Errors of the package. A user's mistake is a `ValueError`; these add what a caller may want to catch apart."""


class UnreadableImageError(ValueError):
    """An image file is missing, truncated, corrupt or of an unknown format; the message names it."""


class IncompatibleIndexError(ValueError):
    """A stored index was made by another model, revision or settings than those in use."""


class FilterError(ValueError):
    """An expression that entries of an index are filtered by can't be used; the message says why."""


class NotFiniteError(ValueError):
    """A loss, a gradient or a weight of a training run is NaN or infinite; the message has the step and the name."""


class LockedIndexError(ValueError):
    """Another run writes the index; the message names it."""
