"""What the gateway's schema is made of."""

from typing import Final

from kalends_shared.migrations import Schema

SCHEMA: Final = Schema(name="gateway", parts=("idempotency",), package="kalends_gateway")
