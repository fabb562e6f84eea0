"""Messages of other packages during training that say nothing to its user."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_ADVERTISED = ("litlogger", "litmodels")  # services, in tips of Lightning


@contextmanager
def without_noise() -> Iterator[None]:
    """Leave out tips for services, which read as if data were sent to them, and what Lightning's own code is deprecated for."""
    lightning = logging.getLogger("lightning.pytorch.utilities.rank_zero")

    def is_no_tip(record: logging.LogRecord) -> bool:  # one for each training, since one may run within another
        return not any(name in record.getMessage() for name in _ADVERTISED)

    lightning.addFilter(is_no_tip)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)
            yield
    finally:
        lightning.removeFilter(is_no_tip)
