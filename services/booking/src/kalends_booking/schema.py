"""What the booking schema is made of."""

from typing import Final

from kalends_shared.migrations import Schema

SCHEMA: Final = Schema(
    name="booking", parts=("event_store", "consumer", "idempotency", "timers"), package="kalends_booking"
)
