"""How many searches a process takes in: beyond that it says so at once, before it spends anything on them.

What waits longer than its asker is worked on for nobody. So few wait, and the rest are told to come again.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from fastapi import Request

from core.errors import Overloaded

PLACES = 25  # running and waiting; five run at once, so the last waits about four times as long as a search takes


class Admission:
    """A number of places. The event loop alone takes and gives them, so there is no lock."""

    def __init__(self, places: int = PLACES) -> None:
        self._free = places

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place while the body runs. Raises Overloaded."""
        if self._free <= 0:
            raise Overloaded("too many searches wait already: ask again later")
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


async def admitted(request: Request) -> AsyncIterator[None]:
    """For the length of the request, a place among the process's searches. Raises Overloaded."""
    admission: Admission = request.app.state.admission
    with admission.place():
        yield
