"""The logger of the package, whose messages users see without setting anything up."""

from __future__ import annotations

import logging

logger = logging.getLogger("sparsenode")


def _show_messages() -> None:
    """Write messages from INFO on to the standard error stream, unless the user has chosen a level or handlers."""
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    if not logger.handlers:
        handler = logging.StreamHandler()
        # A program with a log of its own gets the messages there, and not twice.
        handler.addFilter(lambda record: not logging.getLogger().handlers)
        logger.addHandler(handler)


_show_messages()
