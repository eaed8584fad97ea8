"""Subscriptions: create, read, list, change, delete, and new secrets."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from kalends_shared import idempotency, lists
from kalends_shared.contracts import ids
from kalends_shared.contracts.call import Call, Reply, check_match, etag
from kalends_shared.contracts.decode import decode, patch, query
from kalends_shared.contracts.endpoints import PageQuery
from kalends_shared.contracts.errors import KalendsError, not_found
from kalends_shared.contracts.webhooks import Profile, RotateIn, WebhookIn
from kalends_shared.db import Connection, Database, Queryable
from kalends_shared.idempotency import idempotent
from kalends_shared.net import AddressNotAllowedError, Policy, UrlNotAllowedError
from kalends_shared.seal import Keyring
from kalends_webhooks.domain import subscription as rules
from kalends_webhooks.domain.signing import Brand
from kalends_webhooks.domain.subscription import Subscription
from kalends_webhooks.store import feed, subscriptions
from kalends_webhooks.vault import belongs_to

RESOLVE_SECONDS: Final = 1.0

# Waits until what has happened so far is in the feeds, so that a new subscription begins after it.
Settled = Callable[[], Awaitable[None]]


class Newest(Struct):
    """What lists of subscriptions are sorted by."""

    created_at: datetime
    id: str


class Webhooks:
    """The handlers that change or show subscriptions."""

    def __init__(
        self, db: Database, keyring: Keyring, policy: Policy, brand: Brand, profile: Profile, settled: Settled
    ) -> None:
        self._db, self._keyring, self._policy = db, keyring, policy
        self._brand, self._profile, self._settled = brand, profile, settled

    async def create(self, call: Call) -> Reply:
        wanted = decode(call.body, WebhookIn)
        if (stored := await idempotency.answered(self._db.pool, call)) is not None:
            return stored
        wanted.profile = wanted.profile or self._profile
        await self._check(wanted)
        secret = wanted.secret or rules.make_secret()
        wanted.secret = None
        await self._settled()

        async def insert(conn: Connection) -> Reply:
            made = Subscription(
                id=ids.new_id("whk"),
                tenant_id=call.tenant,
                version=1,
                created_at=call.now,
                updated_at=call.now,
                wanted=wanted,
                disabled_reason=None,
                secret=b"",
                secret_hint=rules.hint(secret),
            )
            made.secret = self._seal(made, secret)
            await subscriptions.changed(conn, call.tenant)
            if await subscriptions.count(conn, call.tenant) >= rules.MOST:
                raise KalendsError("limit_reached", f"An account has at most {rules.MOST} webhooks.")
            await subscriptions.insert(conn, made)
            return Reply(
                status=201,
                body=rules.public(made, secret),
                etag=etag(made.version),
                location=f"/webhooks/{made.id}",
                position=await feed.written(conn),
            )

        return await idempotent(self._db, call, insert)

    async def get(self, call: Call) -> Reply:
        found = await self._one(self._db.pool, call)
        return Reply(body=rules.public(found), etag=etag(found.version))

    async def list(self, call: Call) -> Reply:
        window = lists.window(query(call.query, PageQuery), Newest)
        after = (window.after.created_at, window.after.id) if window.after else None
        rows = await subscriptions.page(self._db.pool, call.tenant, after, window.take, window.offset)
        total = await subscriptions.count(self._db.pool, call.tenant) if window.numbered else None
        return Reply(body=lists.answer(window, rows, key=_key, encode=_encode, total=total))

    async def patch(self, call: Call) -> Reply:
        before = await self._one(self._db.pool, call)
        wanted = patch(call.body, msgspec.structs.replace(before.wanted))
        wanted.profile = wanted.profile or self._profile
        await self._check(wanted, resolve=wanted.url != before.wanted.url)
        async with self._db.transaction() as conn:
            await subscriptions.changed(conn, call.tenant)
            now_there = await self._one(conn, call, lock=True)
            check_match(call, now_there.version)
            # Merged anew, as another change may have come between.
            wanted = patch(call.body, now_there.wanted)
            wanted.profile = wanted.profile or self._profile
            return await self._change(conn, call, now_there, wanted)

    async def _change(self, conn: Connection, call: Call, before: Subscription, wanted: WebhookIn) -> Reply:
        after = msgspec.structs.replace(before, wanted=wanted, version=before.version + 1, updated_at=call.now)
        revived = wanted.enabled and before.disabled_reason is not None
        if revived:
            after.disabled_reason = None
        if wanted.secret is not None:
            self._give_secret(after, wanted.secret, immediate=False)
            wanted.secret = None
        await subscriptions.update(conn, after, revived=revived)
        return Reply(body=rules.public(after), etag=etag(after.version), position=await feed.written(conn))

    async def delete(self, call: Call) -> Reply:
        async with self._db.transaction() as conn:
            await subscriptions.changed(conn, call.tenant)
            before = await self._one(conn, call, lock=True)
            check_match(call, before.version)
            await subscriptions.delete(conn, call.tenant, before.id)
            return Reply(status=204, position=await feed.written(conn))

    async def rotate_secret(self, call: Call) -> Reply:
        asked = decode(call.body, RotateIn)

        async def rotate(conn: Connection) -> Reply:
            await subscriptions.changed(conn, call.tenant)
            before = await self._one(conn, call, lock=True)
            check_match(call, before.version)
            after = msgspec.structs.replace(before, version=before.version + 1, updated_at=call.now)
            secret = rules.make_secret()
            self._give_secret(after, secret, immediate=asked.immediate)
            await subscriptions.update(conn, after)
            return Reply(body=rules.public(after, secret), etag=etag(after.version), position=await feed.written(conn))

        return await idempotent(self._db, call, rotate)

    async def _one(self, conn: Queryable, call: Call, *, lock: bool = False) -> Subscription:
        found = await subscriptions.one(conn, call.tenant, call.params["id"], lock=lock)
        if found is None:
            raise not_found("This webhook")
        return found

    async def _check(self, wanted: WebhookIn, *, resolve: bool = True) -> None:
        """Holds a subscription to all rules, its url also to what its name leads to, as far as that is known in a second.

        Raises:
            KalendsError: `validation_failed`.
        """
        rules.check(wanted, self._brand)
        try:
            self._policy.check_url(wanted.url)
            if resolve:
                parts = urlsplit(wanted.url)
                async with asyncio.timeout(RESOLVE_SECONDS):
                    await self._policy.resolve(parts.hostname or "", parts.port or 443)
        except UrlNotAllowedError as refusal:
            raise rules.url_refused(str(refusal)) from refusal
        except AddressNotAllowedError as refusal:
            raise rules.url_refused("must not lead to a private or reserved address") from refusal
        except (OSError, UnicodeError):
            return  # a name that nobody knows yet: judged at each attempt, as every one is

    def _give_secret(self, subscription: Subscription, secret: str, *, immediate: bool) -> None:
        """Puts a new secret in force; the old one signs on for a day, unless all before the new one is to end at once.

        The day is the receivers', so it goes by the wall clock and never by the test clock.
        """
        now = datetime.now(UTC)
        replaced = rules.Retiring(subscription.secret, now + timedelta(seconds=rules.OVERLAP_SECONDS))
        live = (replaced, *(one for one in subscription.retiring if now < one.until))
        subscription.retiring = () if immediate else live[: rules.RETIRING_MOST]
        subscription.secret = self._seal(subscription, secret)
        subscription.secret_hint = rules.hint(secret)

    def _seal(self, subscription: Subscription, secret: str) -> bytes:
        return self._keyring.seal(secret.encode(), belongs_to(subscription.tenant_id, subscription.id))


def _key(row: Subscription) -> Newest:
    return Newest(row.created_at, row.id)


def _encode(row: Subscription) -> bytes:
    return msgspec.json.encode(rules.public(row))
