"""Valid and invalid reactions."""

import pytest
from backend.workspace.discussions._emoji import parse_emoji
from backend.workspace.errors import EmojiInvalid


@pytest.mark.parametrize(
    "emoji",
    [
        *("👍", "♟", "❤", "❤️", "✅", "⭐", "©", "‼️", "🫨"),
        pytest.param("👍🏽", id="with a skin tone"),
        pytest.param("👩🏽‍💻", id="joined"),
        pytest.param("👨‍👩‍👧‍👦", id="a family"),
        pytest.param("👨🏽‍❤️‍💋‍👨🏾", id="the longest"),
        pytest.param("🇨🇳", id="a flag of two letters"),
        pytest.param(
            "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f", id="a region's"
        ),
        pytest.param("1️⃣", id="a keycap"),
    ],
)
def test_one_emoji_is_a_reaction(emoji: str) -> None:
    assert parse_emoji(emoji) == emoji


@pytest.mark.parametrize(
    "text",
    [
        "",
        "like",
        "1",
        "é",
        "棋",
        "👍👍",
        "👍 ",
        "x👍",
        "🇨",
        "\u200d",
        "👍\u200d",
        "\ufe0f",
        "🏴\U000e0067",
        "<b>",
        "👍‍" * 12,
    ],
)
def test_other_text_is_no_reaction(text: str) -> None:
    with pytest.raises(EmojiInvalid):
        parse_emoji(text)
