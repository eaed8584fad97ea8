"""Old events as today's code wants them: pure functions from one schema version of an event type to the next.

    @UPCASTERS.step("booking.created", 1)
    def named_hosts(data, state):             # version 1 -> 2
        data["host_ids"] = [data.pop("host_id")]
        return data, state

They work on the decoded documents, before anything is typed; rows are never rewritten. Golden files of each version in
a package's tests hold them. An event of a version above the highest known is not read at all: see `newer`.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from kalends_shared.contracts.events import Envelope

Document = dict[str, Any]
Step = Callable[[Document, Document], tuple[Document, Document]]


class Upcasters:
    def __init__(self) -> None:
        self._steps: dict[tuple[str, int], Step] = {}

    def step(self, event_type: str, version: int) -> Callable[[Step], Step]:
        """Registers the step from `version` to the one above; `(data, state) -> (data, state)`, which it may change in place."""

        def register(step: Step) -> Step:
            if (event_type, version) in self._steps:
                raise ValueError(f"two steps from version {version} of {event_type}")
            self._steps[event_type, version] = step
            return step

        return register

    def current(self, event_type: str) -> int:
        """The version that this code writes and reads."""
        version = 1
        while (event_type, version) in self._steps:
            version += 1
        return version

    def newer(self, event: Envelope) -> bool:
        """Tells whether only a later release can read this event."""
        return event.schema_version > self.current(event.type)

    def documents(self, event_type: str, version: int, data: bytes, state: bytes) -> tuple[int, bytes, bytes]:
        """An event's version and documents, raised to the current version; the same bytes where they are there already."""
        if (event_type, version) not in self._steps:
            return version, data, state
        decoded = msgspec.json.decode(data), msgspec.json.decode(state)
        while (step := self._steps.get((event_type, version))) is not None:
            decoded = step(*decoded)
            version += 1
        return version, msgspec.json.encode(decoded[0]), msgspec.json.encode(decoded[1])

    def raised(self, event: Envelope) -> Envelope:
        """The event at the current version."""
        if (event.type, event.schema_version) not in self._steps:
            return event
        version, data, state = self.documents(event.type, event.schema_version, bytes(event.data), bytes(event.state))
        return msgspec.structs.replace(event, schema_version=version, data=msgspec.Raw(data), state=msgspec.Raw(state))


# The steps of every context: its own service and all who consume its events must read an old one alike.
UPCASTERS: Final = Upcasters()
