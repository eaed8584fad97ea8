"""Methods of `kalends.rpc.calendar_sync` by name."""

from kalends_calendar_sync.handlers.calendars import Calendars
from kalends_calendar_sync.handlers.events import Events
from kalends_shared.rpc import Handler


def handlers(calendars: Calendars, events: Events) -> dict[str, Handler]:
    return {
        "list_calendars": calendars.list,
        "create_calendar": calendars.create,
        "get_calendar": calendars.get,
        "patch_calendar": calendars.patch,
        "delete_calendar": calendars.delete,
        "sync_calendar": calendars.sync,
        "list_events": events.list,
        "create_event": events.create,
        "get_event": events.get,
        "patch_event": events.patch,
        "delete_event": events.delete,
    }
