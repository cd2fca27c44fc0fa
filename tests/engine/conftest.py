"""A run takes over the loggers; afterwards they belong to pytest again."""

from collections.abc import Iterator

import pytest

from queryseg.engine.logs import detach_handlers


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Iterator[None]:
    yield
    detach_handlers()
