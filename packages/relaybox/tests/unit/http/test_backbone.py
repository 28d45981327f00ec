"""Effects of the lifespan of a backbone on its process."""

import gc

from fastapi import FastAPI
from pydantic import SecretStr
from relaybox.db import Database
from relaybox.http import Backbone, SharedSecretVerifier
from relaybox.settings import PostgresSettings

from packages.relaybox.tests.unit.http.conftest import JWT


async def test_lifespan_freezes_startup_objects_until_its_end() -> None:
    settings = PostgresSettings(port=1, password=SecretStr("unused"))
    backbone = Backbone(Database(settings, application_name="test"), [], verifier=SharedSecretVerifier(JWT))
    gc.unfreeze()
    thresholds = gc.get_threshold()

    async with backbone.lifespan(FastAPI()):
        while_serving = gc.get_freeze_count()

    assert while_serving > 0
    assert gc.get_freeze_count() == 0
    assert gc.get_threshold() == thresholds
