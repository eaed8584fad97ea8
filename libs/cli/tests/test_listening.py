"""What `kalends listen` does where the stream that it reads ends, is refused, or no longer knows its place."""

import itertools

import httpx
import pytest

from kalends_cli.commands import listen
from kalends_cli.problem import Problem

EVENTS = b'retry: 1000\n\nid: c%d\ndata: {"type":"booking.created","id":"msg_%d"}\n\n: alive\n\n'


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "_wait", lambda _: None)


def test_it_goes_on_from_where_it_was_and_says_each_change_once(capsys: pytest.CaptureFixture[str]) -> None:
    answers = iter(
        [
            httpx.Response(200, content=EVENTS % (1, 1)),
            httpx.Response(503),
            httpx.Response(503),
            httpx.Response(200, content=EVENTS % (2, 2)),
            httpx.Response(422),
            httpx.Response(200, content=EVENTS % (9, 9)),
            httpx.Response(401),
        ]
    )
    asked: list[tuple[str | None, str | None]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.headers.get("last-event-id"), request.url.params.get("after")))
        return next(answers)

    with httpx.Client(base_url="http://kalends.test", transport=httpx.MockTransport(answer)) as api:
        events = listen._events(api)
        assert [event_id for _, event_id, _ in itertools.islice(events, 3)] == ["msg_1", "msg_2", "msg_9"]
        with pytest.raises(Problem):
            next(events)
    assert asked == [(None, "latest"), *[("c1", None)] * 3, ("c2", None), (None, "latest"), ("c9", None)]
    assert capsys.readouterr().out.splitlines() == [
        "kalends.test answers 503; trying again until it is back",
        "connected again",
        "the place that was read to is no longer known; on with what is to come",
    ]
