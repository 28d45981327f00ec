"""Validation errors, which may be logged, contain no input."""

import pytest
from pydantic import BaseModel, ValidationError
from relaybox_types import api, envelope
from relaybox_types import rows as backbone_rows
from shared_types import genesis, genesis_api, rows

MODELS = [
    model
    for module in (api, envelope, backbone_rows, genesis, genesis_api, rows)
    for model in vars(module).values()
    if isinstance(model, type) and issubclass(model, BaseModel) and model.__module__ == module.__name__
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: f"{model.__module__}.{model.__name__}")
def test_validation_error_contains_no_input(model: type[BaseModel]) -> None:
    with pytest.raises(ValidationError) as refused:
        model.model_validate("a private word")
    assert "private" not in str(refused.value)
