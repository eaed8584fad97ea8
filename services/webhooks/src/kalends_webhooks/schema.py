"""The service's schema: the shared parts that it uses, and its own migrations."""

from typing import Final

from kalends_shared.migrations import Schema

SCHEMA: Final = Schema(name="webhooks", parts=("consumer", "idempotency"), package="kalends_webhooks")
