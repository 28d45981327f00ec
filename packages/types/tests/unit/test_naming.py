"""The naming rules of events: valid names, refused names, and the time of the check."""

import importlib
import re
import sys
from pathlib import Path

import pytest
from relaybox_types.naming import (
    EventNameInvalid,
    OfficialVerb,
    check_dotted_name,
    check_event_name,
    check_past_name,
)


@pytest.mark.parametrize(
    "name",
    [
        "Genesis.Session.Created",
        "Genesis.Session.ConceptGenerationRequested",
        "Genesis.Session.Draft.StageRevised",
        "A.B2.C3Failed",
        "G.S." + "x".upper() + "x" * 187 + "Created",
    ],
)
def test_valid_event_name_is_returned(name: str) -> None:
    assert check_event_name(name) == name


@pytest.mark.parametrize("verb", OfficialVerb)
def test_every_official_verb_is_accepted(verb: OfficialVerb) -> None:
    assert check_event_name(f"Genesis.Session.Stage{verb}")
    assert check_event_name(f"Genesis.Session.{verb}")


def test_official_verbs_are_those_of_the_contract() -> None:
    assert set(OfficialVerb) == {
        *("Requested", "Created", "Proposed", "Submitted", "Confirmed"),
        *("Updated", "Revised", "Completed", "Finished", "Failed"),
    }


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "has 1 parts instead of 3 or 4"),
        ("Genesis.Created", "has 2 parts"),
        ("A.B.C.D.Created", "has 5 parts"),
        ("Genesis..Created", "has a part '' that is not PascalCase"),
        ("genesis.Session.Created", "has a part 'genesis' that is not PascalCase"),
        ("Genesis.Session.Stage_Created", "'Stage_Created' that is not PascalCase"),
        ("Genesis.2Session.Created", "'2Session' that is not PascalCase"),
        ("Genesis.Session.Créated", "'Créated' that is not PascalCase"),
        ("Genesis.Session.Created\n", "that is not PascalCase"),
        ("Genesis.Session.Create", "does not end in one of the allowed verbs"),
        ("Genesis.Session.Deleted", "does not end in one of the allowed verbs"),
        ("G.S." + "X" * 190 + "Created", "is longer than 200 characters"),
    ],
)
def test_invalid_event_name_is_refused_with_reason_and_rule(name: str, reason: str) -> None:
    with pytest.raises(EventNameInvalid) as refused:
        check_event_name(name)
    assert reason in str(refused.value)
    assert "<Domain>.<AggregateRoot>[.<SubAggregate>].<ActionInPastTense>" in str(refused.value)


@pytest.mark.parametrize(
    "name", ["node.created", "study.pgn_imported", "study.chapter.move_added", "a.b2.c_.d", "n." + "x" * 198]
)
def test_valid_dotted_name_is_returned(name: str) -> None:
    assert check_dotted_name(name) == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("node", "has 1 parts instead of 2 to 4"),
        ("a.b.c.d.e", "has 5 parts"),
        ("node..created", "has a part '' that does not match"),
        ("Node.created", "'Node' that does not match"),
        ("node.2created", "'2created'"),
        ("node._created", "'_created'"),
        ("node.pgn-imported", "'pgn-imported'"),
        ("node.créated", "'créated'"),
        ("node.created\n", "does not match"),
        ("n." + "x" * 199, "is longer than 200 characters"),
    ],
)
def test_invalid_dotted_name_is_refused_with_reason_and_rule(name: str, reason: str) -> None:
    with pytest.raises(EventNameInvalid) as refused:
        check_dotted_name(name)
    assert reason in str(refused.value)
    assert "<aggregate>[.<part>[.<part>]].<action_in_past_tense>" in str(refused.value)


@pytest.mark.guarantee("G09")
@pytest.mark.parametrize("action", ["Delete", "stageCreated", "Too.Many.Created"])
def test_module_with_an_invalid_event_name_cannot_be_imported(
    action: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "declaring.py").write_text(
        "from relaybox.commands import Aggregate, Domain\n"
        "class Thing(Aggregate):\n"
        "    def apply(self, event):\n"
        "        return self\n"
        "domain = Domain('Suite.Thing', aggregate=Thing, aggregate_type='THING')\n"
        f"NEWS = domain.event({action!r})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EventNameInvalid, match=re.escape(f"event name 'Suite.Thing.{action}'")):
        importlib.import_module("declaring")
    assert "declaring" not in sys.modules


@pytest.mark.parametrize(
    "action",
    [
        "Shipped",
        "ReservationConfirmed",
        "Sent",
        "OfferWithdrawn",
        "ReceiptResent",
        "Begun",
        "Unpaid",
        "Deleted",
    ],
)
def test_default_rule_accepts_any_past_participle(action: str) -> None:
    assert check_past_name(f"Shop.Order.{action}") == f"Shop.Order.{action}"


@pytest.mark.parametrize("action", ["Ship", "Shipping", "Resend", "SentMail", "Untold1", "OrderIs", "Re"])
def test_default_rule_names_the_setting_for_another_one(action: str) -> None:
    with pytest.raises(EventNameInvalid, match=r"past participle.*naming=") as refused:
        check_past_name(f"Shop.Order.{action}")
    assert f"Shop.Order.{action}" in str(refused.value)


@pytest.mark.parametrize("name", ["Order.Shipped", "shop.Order.Shipped", "Shop.Order.was_shipped"])
def test_default_rule_accepts_three_or_four_pascal_case_parts(name: str) -> None:
    with pytest.raises(EventNameInvalid):
        check_past_name(name)
