"""What ails an installation, read from its database: events that could not be applied, and consumers that lag."""

from typing import Final

from msgspec import Struct

from kalends_cli.installation import schema
from kalends_cli.plan import SERVICES
from kalends_shared import dead_letters
from kalends_shared.dead_letters import DeadLetter
from kalends_shared.events_rpc import OWNERS

COMMAND: Final = "doctor"
LATE_SECONDS: Final = 60.0  # a consumer that far behind is not merely busy

HAS_CONSUMER: Final = "SELECT to_regclass('checkpoints') IS NOT NULL AND to_regclass('dead_letters') IS NOT NULL"
CHECKPOINTS: Final = "SELECT source, tx, position FROM checkpoints ORDER BY source"
FAILED: Final = "SELECT source, tx, position FROM dead_letters WHERE event_id = $1 AND status = 'failed'"
BEHIND: Final = """
SELECT count(*) AS events, coalesce(extract(epoch FROM now() - min(recorded_at)), 0)::float8 AS seconds,
    ($1::bigint, $2::bigint) > (0, 0) AND NOT EXISTS (SELECT FROM events WHERE (tx, position) >= ($1, $2)) AS ahead
FROM events WHERE (tx, position) > ($1, $2)
"""


class Lag(Struct, frozen=True):
    """`events` of `source` that `service` has not applied yet, the oldest of them `seconds` ago.

    `ahead`: it has applied events that the source does not have, which a restore has lost; new ones would be skipped.
    """

    service: str
    source: str
    events: int
    seconds: float
    ahead: bool = False

    @property
    def late(self) -> bool:
        return self.seconds > LATE_SECONDS


class Findings(Struct, frozen=True):
    """`letters` by service; services without a consumer are in neither."""

    lags: list[Lag]
    letters: dict[str, list[DeadLetter]]

    @property
    def well(self) -> bool:
        return not any(self.letters.values()) and not any(lag.late or lag.ahead for lag in self.lags)


async def examine(url: str) -> Findings:
    """Looks into every service's schema; `url` is of a user that may act as their roles.

    Raises:
        asyncpg.PostgresError, OSError: the database cannot be read.
    """
    lags: list[Lag] = []
    letters: dict[str, list[DeadLetter]] = {}
    for service in SERVICES:
        async with schema(url, service, COMMAND) as conn:
            if not await conn.fetchval(HAS_CONSUMER):
                continue
            letters[service] = await dead_letters.listed(conn)
            for source, tx, position in await conn.fetch(CHECKPOINTS):
                async with schema(url, OWNERS[source], COMMAND) as owner:
                    behind = await owner.fetchrow(BEHIND, tx, position)
                    assert behind is not None
                    lags.append(Lag(service, source, behind["events"], behind["seconds"], behind["ahead"]))
    return Findings(lags, letters)


async def retry(url: str, service: str | None = None, stream_id: str | None = None) -> int:
    """Has dead letters tried again, all or those of a service or stream; returns how many were asked for."""
    asked = 0
    for name in SERVICES if service is None else (service,):
        async with schema(url, name, COMMAND) as conn:
            if await conn.fetchval(HAS_CONSUMER):
                asked += await dead_letters.request_retry(conn, stream_id=stream_id)
    return asked


async def discard(url: str, service: str, event_id: str) -> bool:
    """Gives up one failed event for good, as far as `service` goes; what waits behind it is tried. False: none such."""
    async with schema(url, service, COMMAND) as conn:
        if not await conn.fetchval(HAS_CONSUMER):
            return False
        row = await conn.fetchrow(FAILED, event_id)
        return row is not None and await dead_letters.discard(conn, *row)
