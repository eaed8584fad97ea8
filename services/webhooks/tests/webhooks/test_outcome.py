from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from kalends_webhooks.domain.outcome import DEFAULT_SCHEDULE, LONGEST_WAIT, Answer, Next, given_up, judge, retry_after

NOW = datetime(2026, 4, 10, 9, tzinfo=UTC)


def unspread(low: float, high: float) -> float:
    assert low < high
    return low


def judged(answer: Answer, attempts: int = 1, schedule: Sequence[int] = DEFAULT_SCHEDULE) -> Next:
    return judge(answer, attempts, schedule, NOW, unspread)


@pytest.mark.parametrize("code", [200, 201, 204, 299])
def test_two_hundreds_are_success(code: int):
    assert judged(Answer(code)).status == "succeeded"


@pytest.mark.parametrize(
    "answer", [Answer(500), Answer(404), Answer(302, "redirect"), Answer(error="timeout"), Answer(429)]
)
def test_all_else_is_tried_again(answer: Answer):
    next_ = judged(answer)
    assert (next_.status, next_.wait, next_.disable) == ("pending", 5.0, None)


def test_the_schedule_is_seconds_before_each_retry():
    waits = [judged(Answer(500), n, [5, 30]).wait for n in (1, 2)]
    assert waits == [5.0, 30.0]
    assert (judged(Answer(500), 3, [5, 30]).status, judged(Answer(500), 1, []).status) == ("failed", "failed")


def test_the_default_schedule_has_eight_attempts():
    assert [judged(Answer(500), n).wait for n in range(1, 8)] == list(map(float, DEFAULT_SCHEDULE))
    assert judged(Answer(500), 8).status == "failed"


def test_jitter_is_up_to_a_fifth_later_and_never_earlier():
    waits = {judge(Answer(500), 2, [5, 100], NOW).wait or 0 for _ in range(200)}
    assert len(waits) > 100
    assert min(waits) >= 100
    assert max(waits) <= 120
    asked = {judge(Answer(503, headers={"retry-after": "50"}), 1, [5], NOW).wait or 0 for _ in range(200)}
    assert (len(asked) > 100, min(asked) >= 50, max(asked) <= 60) == (True, True, True)
    assert judge(Answer(503, headers={"retry-after": "99999999"}), 1, [5], NOW).wait == LONGEST_WAIT


def test_410_ends_the_subscription():
    next_ = judged(Answer(410))
    assert (next_.status, next_.disable) == ("failed", "gone")


def test_a_receiver_may_end_the_subscription_or_the_delivery():
    asked = judged(Answer(500, headers={"webhook-delivery": " Disable "}))
    assert (asked.status, asked.disable) == ("failed", "receiver_asked")
    assert judged(Answer(200, headers={"webhook-delivery": "disable"})).status == "succeeded"
    aborted = judged(Answer(500, headers={"webhook-delivery": "abort-message"}))
    assert (aborted.status, aborted.disable) == ("failed", None)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("99999999", 86_400.0),
        ("Fri, 10 Apr 2026 09:01:00 GMT", 60.0),
        ("Fri, 10 Apr 2026 08:00:00 GMT", 0.0),
        ("Fri, 10 Apr 2099 08:00:00 GMT", 86_400.0),
        ("-5", None),
        ("soon", None),
        ("1.5", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_in_both_forms(value: str | None, seconds: float | None):
    assert retry_after(value, NOW) == seconds


def test_retry_after_puts_off_and_never_hastens():
    late = judge(Answer(503, headers={"retry-after": "60"}), 1, [5], NOW)
    assert 60 <= (late.wait or 0) <= 72
    assert judged(Answer(503, headers={"retry-after": "1"}), 1, [50]).wait == 50.0
    assert judged(Answer(503, headers={"retry-after": "60"}), 2, [5]).status == "failed"


def test_five_days_without_success_are_enough():
    assert given_up(NOW - timedelta(days=5), NOW)
    assert not given_up(NOW - timedelta(days=4, hours=23), NOW)
