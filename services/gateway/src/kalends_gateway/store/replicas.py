"""The table replicas."""

from typing import Any, Final

import asyncpg

BEAT: Final = """
INSERT INTO replicas (id) VALUES ($1)
ON CONFLICT (id) DO UPDATE SET seen_at = now()
"""
LIVE: Final = "SELECT id FROM replicas WHERE seen_at > now() - make_interval(secs => $1)"
GONE: Final = "DELETE FROM replicas WHERE id = $1 OR seen_at < now() - interval '1 minute'"


async def beat(pool: "asyncpg.Pool[Any]", replica: str) -> None:
    await pool.execute(BEAT, replica)


async def live(pool: "asyncpg.Pool[Any]", seconds: float) -> set[str]:
    """The replicas that were seen within so many seconds."""
    return {row["id"] for row in await pool.fetch(LIVE, seconds)}


async def forget(pool: "asyncpg.Pool[Any]", replica: str) -> None:
    """Removes a replica that leaves, and those that left without saying so."""
    await pool.execute(GONE, replica)
