"""The domain alone: its functions are called directly, without servers."""

from uuid import UUID, uuid4

import pytest
from accounts import SENT, Account, InsufficientFunds, TransferMoney, accounts, transfer

ANN = Account(id=uuid4(), owner="ann", version=2, balance=1_000)
BOB_ID = UUID("5f0c8a52-8f0e-4a7c-9a53-4b7f2d5a0001")


def test_transfer_records_the_money_that_leaves() -> None:
    command_id = uuid4()
    [event] = transfer(ANN, TransferMoney(to=BOB_ID, cents=700), command_id)
    assert event == SENT({"transfer_id": str(command_id), "to": str(BOB_ID), "cents": 700})
    assert ANN.apply(event).balance == 300


def test_transfer_of_more_than_the_balance_is_refused() -> None:
    with pytest.raises(InsufficientFunds, match="the balance is 1000 cents"):
        transfer(ANN, TransferMoney(to=BOB_ID, cents=1_001), uuid4())


@pytest.mark.parametrize("event_type", [one for one in accounts.event_types if one != SENT])
def test_no_other_event_takes_money(event_type) -> None:
    assert ANN.apply(event_type({"cents": 5})).balance >= ANN.balance
