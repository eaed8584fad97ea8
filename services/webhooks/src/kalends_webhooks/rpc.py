"""Method -> handler, by the names of contracts.endpoints, and `stream_changes`, which the gateway reads streams from."""

from collections.abc import Mapping

from kalends_shared.rpc import Handler
from kalends_webhooks.handlers.changes import Changes
from kalends_webhooks.handlers.deliveries import Deliveries
from kalends_webhooks.handlers.webhooks import Webhooks


def handlers(webhooks: Webhooks, deliveries: Deliveries, changes: Changes) -> Mapping[str, Handler]:
    return {
        "list_webhooks": webhooks.list,
        "create_webhook": webhooks.create,
        "get_webhook": webhooks.get,
        "patch_webhook": webhooks.patch,
        "delete_webhook": webhooks.delete,
        "rotate_secret": webhooks.rotate_secret,
        "test_webhook": deliveries.test,
        "replay_webhook": deliveries.replay,
        "list_deliveries": deliveries.list,
        "get_delivery": deliveries.get,
        "retry_delivery": deliveries.retry,
        "list_changes": changes.list,
        "stream_changes": changes.stream,
    }
