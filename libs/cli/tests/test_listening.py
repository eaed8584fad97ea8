"""What `kalends listen` does where the stream that it reads ends, is refused, or no longer knows its place."""

import itertools
from collections.abc import Iterator, Sequence

import httpx
import pytest
from standardwebhooks.webhooks import Webhook

from kalends_cli.__main__ import main
from kalends_cli.commands import listen
from kalends_cli.problem import Problem
from kalends_webhooks.domain.subscription import make_secret

EVENT = b'id: c%d\ndata: {"type":"booking.created","id":"msg_%d"}\n\n: alive\n\n'


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "_wait", lambda _: None)


class Server(httpx.MockTransport):
    """Answers in turn, and keeps (path with query, Last-Event-ID) of what it was asked."""

    def __init__(self, answers: Sequence[httpx.Response]) -> None:
        super().__init__(self._answer)
        self._answers = iter(answers)
        self.asked: list[tuple[str, str | None]] = []

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((request.url.raw_path.decode(), request.headers.get("last-event-id")))
        return next(self._answers)


def test_it_goes_on_from_where_it_was_and_says_each_change_once(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server(
        [
            httpx.Response(503),
            httpx.Response(200, content=b"retry: 1000\n\n" + EVENT % (1, 1)),
            httpx.Response(503),
            httpx.Response(503),
            httpx.Response(200, content=EVENT % (2, 2)),
            httpx.Response(422),
            httpx.Response(200, json={"data": [], "has_more": False, "next_cursor": "c8"}),
            httpx.Response(200, content=EVENT % (9, 9)),
            httpx.Response(401),
        ]
    )
    with httpx.Client(base_url="http://kalends.test", transport=server) as api:
        events = listen._events(api, "c0")
        assert [event_id for _, event_id, _ in itertools.islice(events, 3)] == ["msg_1", "msg_2", "msg_9"]
        with pytest.raises(Problem):
            next(events)
    latest = ("/changes?after=latest&limit=1", None)
    places = ["c0", "c0", "c1", "c1", "c1", "c2", "c8", "c9"]
    assert server.asked == [
        *(("/changes", place) for place in places[:6]),
        latest,
        *(("/changes", p) for p in places[6:]),
    ]
    assert capsys.readouterr().out.splitlines() == [
        *["kalends.test answers 503; trying again until it is back", "connected again"] * 2,
        "the place that was read to is no longer known; on with what is to come",
    ]


def test_what_was_cut_off_is_asked_for_again_and_what_unicode_calls_a_line_is_none() -> None:
    body = '{"type":"booking.created","id":"msg_2","name":"a\u2028b\u0085c"}'
    whole = f"id: c2\ndata: {body}\n\n".encode()

    class Cut(httpx.SyncByteStream):
        def __init__(self, end: int) -> None:
            self._end = end

        def __iter__(self) -> Iterator[bytes]:
            yield EVENT % (1, 1)
            yield from (whole[at : at + 1] for at in range(self._end))
            raise httpx.RemoteProtocolError("cut off")

    for end in (3, 7, 12, len(whole) - 1):
        server = Server([httpx.Response(200, stream=Cut(end)), httpx.Response(200, content=whole)])
        with httpx.Client(base_url="http://kalends.test", transport=server) as api:
            found = list(itertools.islice(listen._events(api, "c0"), 2))
        assert [event_id for _, event_id, _ in found] == ["msg_1", "msg_2"], end
        assert found[1][2] == body.encode()
        assert server.asked == [("/changes", "c0"), ("/changes", "c1")]


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (["--forward-to", "localhost:3000/hook"], {}, "--forward-to must be a URL"),
        (["--forward-to", "http://[::1"], {}, "--forward-to is no URL"),
        (["--secret", "whsec_%"], {}, "--secret must be"),
        (["--event", "booking.confrimed"], {}, "there is no event booking.confrimed"),
        ([], {"KALENDS_URL": "localhost:8080"}, "KALENDS_URL must be a URL"),
        ([], {"KALENDS_API_KEY": "kal_test_\N{LATIN SMALL LETTER E WITH ACUTE}"}, "KALENDS_API_KEY holds"),
        ([], {"KALENDS_URL": "http://127.0.0.1:1"}, "http://127.0.0.1:1/api/v1 cannot be read"),
    ],
)
def test_what_it_cannot_go_by_is_told_before_anything_else(
    arguments: list[str],
    environment: dict[str, str],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in ({"KALENDS_URL": "http://127.0.0.1:1", "KALENDS_API_KEY": "kal_test_x"} | environment).items():
        monkeypatch.setenv(name, value)
    assert main(["listen", "--forward-to", "http://127.0.0.1:9/", *arguments]) == 1
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (httpx.Response(401), "not valid"),
        (httpx.Response(403), "may not read"),
        (httpx.Response(200, content=b"<html>"), "is not Kalends"),
    ],
)
def test_who_does_not_answer_as_kalends_does_is_told(answer: httpx.Response, told: str) -> None:
    with (
        httpx.Client(base_url="http://kalends.test", transport=Server([answer])) as api,
        pytest.raises(Problem, match=told),
    ):
        listen._get(api, "/profile")


def test_a_receiver_has_three_tries_each_signed(capsys: pytest.CaptureFixture[str]) -> None:
    got: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        got.append(request)
        if len(got) % 3 == 1:
            raise httpx.ConnectError("nobody there", request=request)
        return httpx.Response(500 if len(got) < 6 else 204)

    secret = make_secret()
    with httpx.Client(transport=httpx.MockTransport(answer)) as out:
        for event_id in ("msg_1", "msg_2"):
            listen._forward(out, "http://hook.test/", secret, "hold.expired", event_id, b"{}")
    assert [Webhook(secret).verify(one.content, dict(one.headers)) for one in got] == [{}] * 6
    assert capsys.readouterr().out.splitlines() == [
        f"hold.expired  {event_id}  {told}"
        for event_id, last in (("msg_1", "500"), ("msg_2", "204"))
        for told in ("ConnectError", "500", last)
    ]
