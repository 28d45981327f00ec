"""The story of a club: a match of 100 games is imported, discussed, shared, thrown away and brought back."""

from backend.demo.club._member import Member
from backend.demo.club._scene import People
from backend.demo.club._story import ClubStory
from backend.demo.club._witness import Witness

__all__ = ("ClubStory", "Member", "People", "Witness")
