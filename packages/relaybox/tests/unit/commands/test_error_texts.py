"""What the errors of commands say."""

from relaybox.commands import ConstraintViolated


def test_error_of_a_constraint_without_a_name_names_none() -> None:
    error = ConstraintViolated("Open", None)
    assert error.constraint is None
    assert str(error) == "Open violates a constraint; read the state again"
    assert "the constraint one_open;" in str(ConstraintViolated("Open", "one_open"))
