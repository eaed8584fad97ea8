"""One attempt: body, signature, POST, and the line of the log that tells of it."""

import time
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import Struct

from kalends_shared import telemetry
from kalends_shared.contracts.webhooks import Attempt
from kalends_webhooks.delivery.http1 import Client, Failed, Response
from kalends_webhooks.delivery.job import Job
from kalends_webhooks.delivery.targets import Target
from kalends_webhooks.domain import facts, payloads, signing
from kalends_webhooks.domain.outcome import Answer

KEPT_HEAD: Final = 2_048


class Sent(Struct, frozen=True):
    """What came of an attempt: the answer that is judged, how long it took, and the log with this attempt in it."""

    answer: Answer
    seconds: float
    log: bytes


class Sender:
    def __init__(self, client: Client, brand: signing.Brand) -> None:
        self._client, self._brand = client, brand

    async def send(self, job: Job, target: Target) -> Sent:
        """Makes one attempt; whatever happens is told in what it returns."""
        now = datetime.now(UTC)
        started = time.perf_counter()
        headers: dict[str, str] = {}
        head: str | None = None
        try:
            if target.url is None:
                raise Failed("address_not_allowed")
            event = event_of(job)
            body = payloads.body(target.payload, event)
            headers = self.headers(job, target, target.url.authority, now, body)
            response = await self._client.post(target.url, _request(target.url.target, headers, body), target.timeout)
            answer = _answer(response)
            # What an answer about an erased person says may be about them, and nothing of them is kept.
            head = None if event.facts.emptied else response.head[:KEPT_HEAD].decode("utf-8", "replace")
        except Failed as failure:
            answer = Answer(error=failure.name)
        except Exception as error:  # noqa: BLE001 - a fault of ours is an attempt like any other, so that it ends some time
            telemetry.failed("webhook.attempt_failed", error, delivery_id=job.id)
            answer = Answer(error="internal")
        seconds = time.perf_counter() - started
        attempt = Attempt(
            started_at=now,
            duration_ms=round(seconds * 1000),
            status_code=answer.status_code,
            error=answer.error,
            response_head=head,
            request_headers=headers,
        )
        return Sent(answer, seconds, appended(job.log, attempt))

    def sweep(self) -> None:
        """Closes connections that have been idle too long."""
        self._client.sweep()

    def headers(self, job: Job, target: Target, authority: str, now: datetime, body: bytes) -> dict[str, str]:
        """All headers of the request, as they go out and into the log."""
        headers = {
            "Host": authority,
            "User-Agent": self._brand.user_agent,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Accept-Encoding": "identity",
        }
        signed = signing.headers(
            target.signature, self._brand, target.keys_at(now), job.event_id, int(now.timestamp()), body
        )
        if (trace := telemetry.traceparent()) is not None:
            headers["traceparent"] = trace
        return headers | signed | target.headers


def event_of(job: Job) -> payloads.Event:
    """The event that a delivery carries, put together now from what is still known."""
    return payloads.Event(
        id=job.event_id,
        type=job.type,
        tenant_id=job.lane.tenant_id,
        created_at=job.created_at,
        facts=facts.read(job.data, job.attendees),
    )


def appended(log: bytes, attempt: Attempt) -> bytes:
    """A JSON list with one more attempt at its end."""
    return b"[%b%b%b]" % (log[1:-1], b"," if len(log) > 2 else b"", msgspec.json.encode(attempt))


def _request(target: str, headers: dict[str, str], body: bytes) -> bytes:
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    return f"POST {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body


def _answer(response: Response) -> Answer:
    return Answer(response.status, "redirect" if 300 <= response.status < 400 else None, response.headers)
