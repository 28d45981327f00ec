"""The PGN file of the chess club's story: a match in which each of 10 players meets each of 10 opponents."""

from itertools import product
from typing import Final

__all__ = ("GAMES", "club_match")

_HOME: Final = ("Ada", "Ben", "Chloé", "Dora", "Emil", "Fatima", "Gita", "Hugo", "Inès", "Jürgen")
_AWAY: Final = ("Karl", "Łukasz", "Mina", "Nils", "Olga", "Paul", "Rosa", "Søren", "Tarek", "Zoë")
GAMES: Final = len(_HOME) * len(_AWAY)
#: The first four moves of each opening, with variations.
_OPENINGS: Final = (
    "Italian Game: 1. e4 e5 2. Nf3 Nc6 3. Bc4 Bc5 $1 (3... Nf6 4. Ng5 $5 (4. d3 Be7) 4... d5) 4. c3 Nf6",
    "Scotch Game: 1. e4 e5 2. Nf3 Nc6 3. d4 exd4 4. Nxd4 $1 (4. c3 $5 dxc3 (4... d5 5. exd5)) 4... Bc5",
    "Petrov: 1. e4 e5 2. Nf3 Nf6 3. Nxe5 d6 $1 (3... Nxe4 $6 4. Qe2 Nf6 $4 (4... d5) 5. Nc6+) 4. Nf3 Nxe4",
    "Four Knights: 1. e4 e5 2. Nf3 Nc6 3. Nc3 Nf6 4. Bb5 (4. d4 exd4 (4... Bb4 5. Nxe5) 5. Nxd4) 4... Bb4 $1",
    "Vienna Game: 1. e4 e5 2. Nc3 Nf6 3. f4 $5 (3. Bc4 Nxe4 $5 (3... Nc6 4. d3)) 3... d5 4. fxe5 Nxe4",
    "King's Gambit: 1. e4 e5 2. f4 exf4 (2... Bc5 3. fxe5 $4 (3. Nf3 d6) 3... Qh4+) 3. Nf3 d6 $5 4. d4 Nf6",
    "Sicilian: 1. e4 c5 2. Nf3 d6 3. d4 cxd4 4. Nxd4 $1 (4. Qxd4 $5 Nc6 (4... a6 5. h3) 5. Bb5) 4... Nf6",
    "French: 1. e4 e6 2. d4 d5 3. Nc3 (3. e5 c5 (3... b6 $5 4. c3) 4. c3) 3... Nf6 $1 4. Bg5 Be7",
    "Caro-Kann: 1. e4 c6 2. d4 d5 3. e5 Bf5 $1 (3... c5 $5 4. dxc5 (4. c3 Nc6) 4... e6) 4. Nf3 e6",
    "Scandinavian: 1. e4 d5 2. exd5 Qxd5 (2... Nf6 3. d4 (3. c4 c6 $5) 3... Nxd5) 3. Nc3 Qd6 $5 4. d4 Nf6",
    "Alekhine: 1. e4 Nf6 2. e5 Nd5 3. d4 d6 4. Nf3 $1 (4. c4 Nb6 5. exd6 (5. f4 $5 dxe5) 5... cxd6) 4... Bg4",
    "Pirc: 1. e4 d6 2. d4 Nf6 3. Nc3 g6 4. Nf3 (4. f4 $5 Bg7 (4... c5 5. dxc5) 5. Nf3) 4... Bg7 $1",
    "Declined: 1. d4 d5 2. c4 e6 3. Nc3 Nf6 $1 (3... c5 4. cxd5 exd5 (4... cxd4 $5 5. Qxd4)) 4. Bg5 Be7",
    "Accepted: 1. d4 d5 2. c4 dxc4 3. Nf3 (3. e4 $5 e5 (3... Nf6 4. e5) 4. Nf3) 3... Nf6 $1 4. e3 e6",
    "Slav: 1. d4 d5 2. c4 c6 3. Nf3 Nf6 4. Nc3 (4. e3 Bf5 (4... e6 5. Bd3) 5. Nc3) 4... e6 $1",
    "King's Indian: 1. d4 Nf6 2. c4 g6 3. Nc3 Bg7 4. e4 $1 (4. Nf3 O-O (4... d6 5. e4) 5. e4) 4... d6",
    "Grünfeld: 1. d4 Nf6 2. c4 g6 3. Nc3 d5 $1 (3... Bg7 4. e4 (4. Nf3 d6) 4... d6) 4. cxd5 Nxd5",
    "Nimzo-Indian: 1. d4 Nf6 2. c4 e6 3. Nc3 Bb4 $1 (3... d5 4. Nf3 (4. cxd5 exd5) 4... Be7) 4. e3 O-O",
    "Dutch: 1. d4 f5 2. c4 (2. e4 $5 fxe4 (2... d6 $2 3. exf5) 3. Nc3) 2... Nf6 3. g3 e6 4. Bg2 $1 Be7",
    "English: 1. c4 e5 2. Nc3 Nf6 3. Nf3 Nc6 4. g3 $1 (4. e4 Bb4 (4... Bc5 5. Nxe5 $5) 5. d3) 4... d5",
)
#: Moves five and six; each pair is legal after each of the openings.
_ENDS: Final = (
    ("h3 h6", "a3 a6"),
    ("a3 h6", "h3 a6"),
    ("a4 a5", "h3 h6"),
    ("h4 h5", "a3 a6"),
    ("a3 a6", "h4 h5"),
)
_RESULTS: Final = ("1-0", "0-1", "1/2-1/2")


def club_match() -> str:
    """Return 100 different games as PGN, with glyphs, clocks, texts, arrows and nested variations."""
    pairs = enumerate(product(_HOME, _AWAY))
    return "\n".join(_game(number, white, black) for number, (white, black) in pairs)


def _game(number: int, white: str, black: str) -> str:
    """Return one game in the format of the product's export, so that both texts can be compared."""
    name, moves = _OPENINGS[number % len(_OPENINGS)].split(": ")
    fifth, sixth = _ENDS[number // len(_OPENINGS)]
    result = _RESULTS[number % len(_RESULTS)]
    return f"""[Event "Club match"]
[Site "Clubhouse"]
[Date "2026.01.{number % 28 + 1:02}"]
[Round "{number + 1}"]
[White "{white}"]
[Black "{black}"]
[Result "{result}"]
[Opening "{name}"]

{moves} {{ [%clk 1:{number % 60:02}:30] }}
5. {fifth} {{ [%cal Gd2d4] {white} and {black} agree: that was the {name}. }} 6. {sixth} {result}
"""
