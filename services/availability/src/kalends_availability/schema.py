"""What the availability schema is made of."""

from typing import Final

from kalends_shared.migrations import Schema

SCHEMA: Final = Schema(
    name="availability", parts=("event_store", "consumer", "idempotency"), package="kalends_availability"
)
