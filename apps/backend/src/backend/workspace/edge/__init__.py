"""Where HTTP meets a workspace: who asks, what is read of a request, how it is answered."""

from backend.workspace.edge._caching import ShareTokenCaching
from backend.workspace.edge._cursors import cursor_of, instant, place_of, whole
from backend.workspace.edge._edge import (
    MATCH_ERRORS,
    READ_ERRORS,
    SHARE_HEADER,
    THING_READ_ERRORS,
    THING_WRITE_ERRORS,
    WRITE_ERRORS,
    Edge,
    IfMatchHeader,
    Viewer,
    body_of,
    documented,
    id_in,
    json_answer,
)
from backend.workspace.edge._places import Places
from backend.workspace.edge._tickets import TICKET_S, Tickets

__all__ = (
    "MATCH_ERRORS",
    "READ_ERRORS",
    "SHARE_HEADER",
    "THING_READ_ERRORS",
    "THING_WRITE_ERRORS",
    "TICKET_S",
    "WRITE_ERRORS",
    "Edge",
    "IfMatchHeader",
    "Places",
    "ShareTokenCaching",
    "Tickets",
    "Viewer",
    "body_of",
    "cursor_of",
    "documented",
    "id_in",
    "instant",
    "json_answer",
    "place_of",
    "whole",
)
