"""What the handlers of calendars and those of events share: how they answer, and that a host has to be there."""

from collections.abc import Awaitable, Callable
from typing import Final

from kalends_shared import positions
from kalends_shared.contracts.call import Call, Reply, etag
from kalends_shared.contracts.errors import KalendsError, invalid
from kalends_shared.event_store import Appended

SOURCE: Final = "calendar"
# (call, id) -> the host's zone; raises `not_found` for a host that is not.
GetHost = Callable[[Call, str], Awaitable[str]]


async def zone_of(host_zone: GetHost, call: Call, host_id: str) -> str:
    """The zone of a host that a body names.

    Raises:
        KalendsError: `validation_failed` at `#/host_id` where there is no such host; that it cannot be asked.
    """
    try:
        return await host_zone(call, host_id)
    except KalendsError as error:
        if error.code != "not_found":
            raise
        raise invalid("#/host_id", "not_found", "is not a host") from error


def shown(
    body: bytes, version: int, made: Appended | None = None, *, status: int = 200, location: str | None = None
) -> Reply:
    """An object as its reader sees it; of a write, with the position of what was appended last."""
    return Reply(status=status, body=body, etag=etag(version), location=location, position=_position(made))


def removed(made: Appended) -> Reply:
    return Reply(status=204, position=_position(made))


def _position(made: Appended | None) -> str | None:
    return positions.token(SOURCE, made.at) if made is not None else None
