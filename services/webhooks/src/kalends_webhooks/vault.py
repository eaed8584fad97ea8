"""Webhook secrets at rest: what each is bound to, and where they are."""

from typing import Final

from kalends_shared.rewrapping import Sealed


def belongs_to(tenant_id: str, webhook_id: str) -> str:
    """What a sealed webhook secret is bound to."""
    return f"{tenant_id}|{webhook_id}|secret"


SEALED: Final = Sealed(
    page="""
        SELECT tenant_id, id, ARRAY[secret, previous_secret] || earlier_secrets AS secrets FROM subscriptions
        WHERE (tenant_id, id) > ($1, $2) ORDER BY tenant_id, id LIMIT $3 FOR NO KEY UPDATE
    """,
    put="""
        UPDATE subscriptions SET secret = ($3::bytea[])[1], previous_secret = ($3::bytea[])[2],
            earlier_secrets = ($3::bytea[])[3:]
        WHERE tenant_id = $1 AND id = $2
    """,
    belongs_to=lambda row: belongs_to(row["tenant_id"], row["id"]),
)
