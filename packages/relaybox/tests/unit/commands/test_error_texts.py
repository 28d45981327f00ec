"""What the errors of commands say."""

from relaybox.commands import ConstraintViolated


def test_error_of_a_constraint_without_a_name_names_none() -> None:
    error = ConstraintViolated("Open", None)
    assert error.constraint is None
    assert str(error) == (
        "Open was refused by a constraint: the id or value exists already or is not allowed; "
        "read the state, then send a changed command"
    )
    assert "the constraint one_open: " in str(ConstraintViolated("Open", "one_open"))
