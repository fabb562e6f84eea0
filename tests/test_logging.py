"""Messages of the package are seen, once, and can be silenced."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable

import pytest

from sparsenode._logging import _show_messages, logger


@pytest.fixture
def watch(monkeypatch) -> Callable[..., io.StringIO]:
    """Call it in the test to get what a user sees whose program has these handlers, and not those of pytest."""

    def start(*handlers: logging.Handler) -> io.StringIO:
        stream = io.StringIO()
        monkeypatch.setattr(logger.handlers[0], "stream", stream)
        monkeypatch.setattr(logging.getLogger(), "handlers", list(handlers))
        return stream

    return start


def test_messages_are_seen_by_default(watch):
    seen = watch()
    logging.getLogger("sparsenode").info("2 of %d regulators", 3)
    assert seen.getvalue() == "2 of 3 regulators\n"


def test_messages_can_be_silenced(watch):
    seen, before = watch(), logger.level
    try:
        logging.getLogger("sparsenode").setLevel(logging.ERROR)
        logger.info("a message")
        _show_messages()  # what was chosen before the import stays
        logger.info("a message")
    finally:
        logger.setLevel(before)
    assert seen.getvalue() == ""


def test_messages_go_once_into_the_log_of_a_program(watch):
    own = io.StringIO()
    seen = watch(logging.StreamHandler(own))
    logger.info("a message")
    assert (seen.getvalue(), own.getvalue()) == ("", "a message\n")


def test_there_is_one_handler():
    _show_messages()
    assert [type(handler) for handler in logger.handlers] == [logging.StreamHandler]
