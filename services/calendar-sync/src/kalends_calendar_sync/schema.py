"""What the calendar_sync schema is made of."""

from typing import Final

from kalends_shared.migrations import Schema

SCHEMA: Final = Schema(
    name="calendar_sync", parts=("event_store", "consumer", "idempotency"), package="kalends_calendar_sync"
)
