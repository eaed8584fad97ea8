"""The account behind the key."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import asyncpg

from kalends_gateway.domain.scopes import in_order
from kalends_shared.contracts.accounts import Profile
from kalends_shared.contracts.call import Call, Reply
from kalends_shared.contracts.errors import not_found

ACCOUNT: Final = "SELECT name, slug, timezone FROM accounts WHERE id = $1"


def profile(pool: "asyncpg.Pool[Any]") -> Callable[[Call], Awaitable[Reply]]:
    async def get_profile(call: Call) -> Reply:
        row = await pool.fetchrow(ACCOUNT, call.account_id)
        if row is None:
            raise not_found("This account")
        return Reply(
            body=Profile(
                id=call.account_id,
                name=row["name"],
                slug=row["slug"],
                timezone=row["timezone"],
                mode="test" if call.mode == "test" else "live",
                scopes=in_order(call.scopes),
            )
        )

    return get_profile
