"""What holds for all tests."""

import signal

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Undo what a shell that runs the tests in the background hands down: SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
