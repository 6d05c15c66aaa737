"""The small cache of drawings, as in the tests of the drawings."""

from ..drawings.conftest import cache, drawings, photographs, table  # noqa: F401
