"""The UUID to which an event id is mapped; the mapping must never change."""

from uuid import NAMESPACE_URL, UUID, uuid5

import pytest
from relaybox.events import EVENT_ID_NAMESPACE, EventIdInvalid, event_uuid

ONE = UUID("0192d3f4-5a6b-7c8d-9e0f-a1b2c3d4e5f6")


def test_uuid_is_mapped_to_itself_in_any_spelling() -> None:
    for written in (ONE, str(ONE), str(ONE).upper(), ONE.hex):
        assert event_uuid(written) == ONE


def test_other_id_is_mapped_to_the_documented_uuid() -> None:
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
def test_text_that_only_some_parsers_read_as_uuid_is_an_other_id(name: str) -> None:
    assert event_uuid(name) == uuid5(EVENT_ID_NAMESPACE, name)


def test_case_and_blanks_of_an_id_matter() -> None:
    assert len({event_uuid(name) for name in ("evt_1", "EVT_1", " evt_1", "evt_1 ")}) == 4


@pytest.mark.parametrize("name", ["", "x" * 256, "evt_\ud800"])
def test_invalid_id_is_refused_without_being_repeated(name: str) -> None:
    with pytest.raises(EventIdInvalid) as refused:
        event_uuid(name)
    assert "xxx" not in str(refused.value)
    assert refused.value.error_code == "EVENT_ID_INVALID"


def test_id_may_have_255_characters() -> None:
    assert event_uuid("x" * 255)
