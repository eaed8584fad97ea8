"""Where the write of a stored answer stands: it was stored in that write, when this was not known yet."""

from typing import Final

import msgspec
from msgspec import Struct

from kalends_shared import positions
from kalends_shared.contracts.call import Call, Reply, encoded
from kalends_shared.db import Queryable
from kalends_shared.event_store import Position

# An answer shows one thing at one version; what else its transaction appended, as of a series, stands up to here.
PLACED: Final = """
SELECT e.tx, max(o.position) AS position
FROM events e JOIN events o ON o.tx = e.tx AND o.tenant_id = e.tenant_id
WHERE e.tenant_id = $1 AND e.stream_id = $2 AND e.version = $3 GROUP BY e.tx
"""


class _Shown(Struct):
    id: str
    version: int


async def placed(conn: Queryable, call: Call, stored: Reply) -> Reply:
    """The stored answer of a write to a booking or hold, with its position; `conn` may be a pool."""
    shown = _shown(encoded(stored.body))
    row = await conn.fetchrow(PLACED, call.tenant, shown.id, shown.version)
    if row is not None:
        stored.position = positions.token("booking", Position(row["tx"], row["position"]))
    return stored


_shown: Final = msgspec.json.Decoder(_Shown).decode
