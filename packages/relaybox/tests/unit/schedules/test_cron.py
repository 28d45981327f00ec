"""Ticks of cron expressions, clock changes included."""

from datetime import UTC, datetime, timedelta

import pytest
from relaybox.schedules import RecurringTask, ScheduleInvalid, recurring_task
from relaybox.schedules._cron import Cron

MARCH, OCTOBER = datetime(2026, 3, 28, 12, tzinfo=UTC), datetime(2026, 10, 24, 12, tzinfo=UTC)


def ticks(expression: str, after: datetime, number: int, timezone: str = "Europe/Berlin") -> list[str]:
    cron, found = Cron(expression=expression, timezone=timezone), [after]
    for _ in range(number):
        found.append(cron.next_tick(found[-1]))
    return [tick.strftime("%d. %H:%M%z") for tick in found[1:]]


def test_tick_at_a_time_that_does_not_exist_is_due_at_the_next_one() -> None:
    assert ticks("30 2 * * *", MARCH, 2) == ["29. 03:00+0200", "30. 02:30+0200"]


def test_tick_at_a_time_that_comes_twice_is_due_once() -> None:
    assert ticks("30 2 * * *", OCTOBER, 2) == ["25. 02:30+0200", "26. 02:30+0100"]


def test_next_tick_in_the_second_of_two_hours_is_later() -> None:
    cron = Cron(expression="30 2 * * *", timezone="Europe/Berlin")
    after = datetime(2026, 10, 25, 1, 15, tzinfo=UTC)  # 02:15 for the second time
    assert cron.next_tick(after).strftime("%d. %H:%M%z") == "26. 02:30+0100"


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (MARCH.replace(day=29, hour=0), ["29. 03:00+0200", "29. 04:00+0200"]),
        (OCTOBER.replace(day=25, hour=0), ["25. 02:00+0100", "25. 03:00+0100"]),
    ],
)
def test_hourly_expression_ticks_as_time_goes_by(after: datetime, expected: list[str]) -> None:
    assert ticks("0 * * * *", after, 2) == expected


def test_six_fields_begin_with_the_seconds() -> None:
    cron = Cron(expression="20 5 * * * *", timezone="UTC")
    assert cron.next_tick(MARCH) == MARCH + timedelta(minutes=5, seconds=20)


@pytest.mark.parametrize("expression", ["0 0 2 * * *", "*/60 2 * * *"])
def test_expression_with_seconds_or_steps_follows_the_clock(expression: str) -> None:
    assert ticks(expression, MARCH, 1) == ["30. 02:00+0200"]
    assert ticks(expression, OCTOBER, 2) == ["25. 02:00+0200", "25. 02:00+0100"]


@pytest.mark.parametrize("expression", ["*/20 * * * * *", "* * * * *", "0 6 * * MON", "0 0 29 2 *"])
@pytest.mark.parametrize("missed", [timedelta(0), timedelta(hours=3), timedelta(days=90)])
def test_last_tick_is_the_latest_that_is_due(expression: str, missed: timedelta) -> None:
    cron = Cron(expression=expression, timezone="Europe/Berlin")
    first = cron.next_tick(MARCH - timedelta(days=40))
    last = cron.last_tick(first, first + missed)
    assert first <= last <= first + missed < cron.next_tick(last)
    assert cron.next_tick(last - timedelta(seconds=1)) == last


def test_last_tick_after_a_pause_needs_few_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    cron, searches = Cron(expression="* * 0-11 * * *", timezone="UTC"), list[datetime]()  # 43,200 ticks a day
    search = Cron.next_tick
    monkeypatch.setattr(Cron, "next_tick", lambda self, after: searches.append(after) or search(self, after))
    last = cron.last_tick(MARCH.replace(day=1, hour=0), MARCH.replace(hour=23))
    assert last == MARCH.replace(hour=11, minute=59, second=59)
    assert len(searches) < 50


@pytest.mark.parametrize(
    ("cron", "timezone", "part"),
    [
        ("61 * * * *", "UTC", "Bad minute; use five fields"),
        ("@daily", "UTC", "Wrong number of fields"),
        ("0 0 30 2 *", "UTC", "Bad day-of-month"),
        ("* * * * *", "Europe/Atlantis", "unknown; use a name of the IANA database"),
        ("* * * * *", "", "unknown"),
        ("* * * * *", "../passwd", "unknown"),
    ],
)
def test_unusable_declaration_is_refused_with_a_remedy(cron: str, timezone: str, part: str) -> None:
    with pytest.raises(ScheduleInvalid, match=part):
        recurring_task("Test.Report", cron=cron, timezone=timezone)


@pytest.mark.parametrize("name", ["", "x" * 121, "relaybox.sweep", "two\nlines"])
def test_unusable_name_is_refused(name: str) -> None:
    with pytest.raises(ScheduleInvalid, match="a schedule needs a name of 1 to 120"):
        recurring_task(name, cron="* * * * *")


def test_declared_task_shows_its_next_tick() -> None:
    @recurring_task("Test.Report", cron="0 6 * * *", timezone="Europe/Berlin")
    async def report(_tick: object, _db: object) -> None: ...

    assert isinstance(report, RecurringTask)
    assert report.next_tick(MARCH).isoformat() == "2026-03-29T06:00:00+02:00"
