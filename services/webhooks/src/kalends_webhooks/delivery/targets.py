"""What a worker needs to know of a subscription to send to it, kept in memory by its version."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct

from kalends_shared import telemetry
from kalends_shared.db import Database
from kalends_shared.net import Policy, UrlNotAllowedError
from kalends_shared.seal import Keyring, SealError
from kalends_webhooks.delivery.http1 import Url, parse_url
from kalends_webhooks.delivery.job import Job, Lane
from kalends_webhooks.domain import signing
from kalends_webhooks.domain.subscription import Subscription
from kalends_webhooks.store import subscriptions
from kalends_webhooks.vault import belongs_to

MOST: Final = 20_000


class Target(Struct, frozen=True):
    """A subscription ready to be sent to. `retiring` are the keys of replaced secrets, each until a moment.

    `url` is None where the policy does not let it be called as it is written; its address is judged at each dial.
    """

    version: int
    enabled: bool
    url: Url | None
    headers: dict[str, str]
    signature: str
    payload: str
    schedule: Sequence[int]
    timeout: int
    cap: int | None
    rate: int | None
    ordered: bool
    key: signing.Key
    retiring: tuple[tuple[signing.Key, datetime], ...]

    def keys_at(self, now: datetime) -> tuple[signing.Key, ...]:
        """The keys of the live secrets, the newest first."""
        return (self.key, *(key for key, until in self.retiring if now < until))


def ed25519(seed: bytes) -> Callable[[bytes], bytes]:
    """Signs by the private key of a seed."""
    return Ed25519PrivateKey.from_private_bytes(seed).sign


class Targets:
    def __init__(self, db: Database, keyring: Keyring, policy: Policy) -> None:
        self._db, self._keyring, self._policy = db, keyring, policy
        self._known: OrderedDict[Lane, Target] = OrderedDict()

    def known(self, lane: Lane, version: int | None) -> Target | None:
        """The target at that version or a later one, if it is at hand."""
        target = self._known.get(lane)
        return target if target is not None and version is not None and target.version >= version else None

    def latest(self, lane: Lane) -> Target | None:
        """The target at whatever version is at hand."""
        return self._known.get(lane)

    async def load(self, jobs: Iterable[Job]) -> None:
        """Reads what is missing or old among the targets of these jobs."""
        wanted = {
            job.lane
            for job in jobs
            if job.subscription_version is not None and self.known(job.lane, job.subscription_version) is None
        }
        if wanted:
            for subscription in await subscriptions.many(self._db.pool, wanted):
                self.put(subscription)

    def put(self, subscription: Subscription) -> None:
        lane = Lane(subscription.tenant_id, subscription.id)
        target = self._target(subscription)
        if target is None:
            self._known.pop(lane, None)
            return
        self._known[lane] = target
        self._known.move_to_end(lane)
        while len(self._known) > MOST:
            self._known.popitem(last=False)

    def _target(self, subscription: Subscription) -> Target | None:
        """None where the secret cannot be opened, which is an operator's mistake: the delivery waits for its correction."""
        record = belongs_to(subscription.tenant_id, subscription.id)
        sealed = [subscription.secret, *(one.secret for one in subscription.retiring)]
        try:
            newest, *older = [signing.key(self._keyring.open(secret, record).decode(), ed25519) for secret in sealed]
        except SealError as error:
            telemetry.failed("webhook.secret_unreadable", error, webhook_id=subscription.id)
            return None
        wanted = subscription.wanted
        return Target(
            version=subscription.version,
            enabled=wanted.enabled,
            url=parse_url(wanted.url) if self._allows(wanted.url) else None,
            headers=msgspec.json.decode(wanted.headers, type=dict[str, str]),
            signature=subscription.signature,
            payload=subscription.payload,
            schedule=subscription.schedule,
            timeout=wanted.timeout_seconds,
            cap=wanted.max_in_flight,
            rate=wanted.rate_limit_per_second,
            ordered=wanted.ordered,
            key=newest,
            retiring=tuple(zip(older, (one.until for one in subscription.retiring), strict=True)),
        )

    def _allows(self, url: str) -> bool:
        try:
            self._policy.check_url(url)
        except UrlNotAllowedError:
            return False
        return True
