"""What availability is asked of a host: whether there is such a one, and its zone."""

import msgspec

from kalends_shared.contracts.call import Call
from kalends_shared.rpc import RpcClient


class _Host(msgspec.Struct):
    timezone: str | None = None


class HostZone:
    """Asks `availability.get_host` within the caller's own call."""

    def __init__(self, client: RpcClient) -> None:
        self._client = client

    async def __call__(self, call: Call, host_id: str) -> str:
        """The host's zone.

        Raises:
            KalendsError: `not_found`, or that availability cannot be asked.
        """
        ask = msgspec.structs.replace(
            call,
            method="GET",
            path=f"/hosts/{host_id}",
            params={"id": host_id},
            query="",
            body=b"",
            idempotency_key=None,
            if_match=None,
            min_position=None,
        )
        reply = await self._client.request("availability", "get_host", ask, retry=True)
        return msgspec.json.decode(reply.body, type=_Host).timezone or call.timezone
