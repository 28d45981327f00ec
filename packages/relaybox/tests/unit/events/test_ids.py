"""Which UUID an id stands for; the same for every program, today and later."""

from uuid import NAMESPACE_URL, UUID, uuid5

import pytest
from relaybox.events import EVENT_ID_NAMESPACE, EventIdInvalid, event_uuid

ONE = UUID("0192d3f4-5a6b-7c8d-9e0f-a1b2c3d4e5f6")


def test_a_uuid_stands_for_itself_however_it_is_written() -> None:
    for written in (ONE, str(ONE), str(ONE).upper(), ONE.hex):
        assert event_uuid(written) == ONE


def test_an_id_that_is_no_uuid_stands_for_the_documented_one() -> None:
    assert uuid5(NAMESPACE_URL, "urn:relaybox:event-id") == EVENT_ID_NAMESPACE
    assert event_uuid("evt_123") == UUID("f8eb60ba-418d-5465-af35-c4db4a31c3b4")
    assert event_uuid("题-1") == uuid5(EVENT_ID_NAMESPACE, "题-1")


@pytest.mark.parametrize(
    "name",
    [
        f"{{{ONE}}}",
        ONE.urn,
        f" {ONE}",
        f"{ONE}\n",
        str(ONE).replace("-", "_"),
        f"{ONE.hex[:8]}-{ONE.hex[8:]}",
    ],
)
def test_what_only_some_parsers_take_for_a_uuid_is_a_name(name: str) -> None:
    assert event_uuid(name) == uuid5(EVENT_ID_NAMESPACE, name)


def test_a_name_counts_as_it_is_written() -> None:
    assert len({event_uuid(name) for name in ("evt_1", "EVT_1", " evt_1", "evt_1 ")}) == 4


@pytest.mark.parametrize("name", ["", "x" * 256, "evt_\ud800"])
def test_what_no_id_can_be_made_of_is_refused_without_being_repeated(name: str) -> None:
    with pytest.raises(EventIdInvalid) as refused:
        event_uuid(name)
    assert "xxx" not in str(refused.value)
    assert refused.value.error_code == "EVENT_ID_INVALID"


def test_255_characters_are_not_too_many() -> None:
    assert event_uuid("x" * 255)
