"""What workers are scaled and alerted by (docs/operations)."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

DUE: Final = Gauge("kalends_webhooks_due", "Deliveries that are due now.")
OLDEST: Final = Gauge("kalends_webhooks_oldest_due_seconds", "For how long the oldest due delivery has been due.")
WAITING: Final = Gauge(
    "kalends_webhooks_waiting_seconds",
    "The same of those whose endpoints answer well and have no bounds of their own: what more workers shorten.",
)
IN_FLIGHT: Final = Gauge("kalends_webhooks_in_flight", "Attempts under way in this process.")
RESTING: Final = Gauge("kalends_webhooks_resting", "Endpoints that this process leaves alone, as they do not answer.")
ATTEMPTS: Final = Counter("kalends_webhooks_attempts_total", "Attempts by what came of them.", ["outcome"])
FENCED: Final = Counter(
    "kalends_webhooks_fenced_total", "Results refused because the lease had ended: such a delivery is made twice."
)
DISABLED: Final = Counter("kalends_webhooks_disabled_total", "Subscriptions disabled, by reason.", ["reason"])
REPLAYS: Final = Gauge("kalends_webhooks_replays", "Replays that are still being queued.")
LATENCY: Final = Histogram(
    "kalends_webhooks_latency_seconds",
    "From the event to its receipt, of deliveries that succeeded at the first attempt.",
    buckets=(0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 3600),
)
ATTEMPT_SECONDS: Final = Histogram(
    "kalends_webhooks_attempt_seconds",
    "How long attempts take.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
