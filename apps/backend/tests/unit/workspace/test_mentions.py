"""Names of users that a text mentions."""

import pytest
from backend.workspace.discussions._mentions import MENTIONS_MAX, find_mentions


@pytest.mark.parametrize(
    ("markdown", "names"),
    [
        ("@anna, see @bob and @anna.", ["anna", "bob"]),
        ("(@anna) *@bob* “@carl”", ["anna", "bob", "carl"]),
        ("@auth0|62f8 and @anna.k-1_x", ["auth0|62f8", "anna.k-1_x"]),
        ("@李雷 @Ünal", ["李雷", "Ünal"]),
        ("mail anna@club.org, see https://site/@bob, or \\@carl, or a lone @", []),
        ("@anna\n- @bob\n    - @carl", ["anna", "bob", "carl"]),
    ],
)
def test_mention_is_a_name_after_an_at_sign(markdown: str, names: list[str]) -> None:
    assert find_mentions(markdown) == names


@pytest.mark.parametrize(
    "code",
    [
        "`@no`",
        "`` @no ` @no ``",
        "`a\n@no`",
        "```\n@no\n```",
        "~~~ text\n@no\n```\n@no\n~~~~",
        "```python\n@no",
        "    @no\n    @no",
        "\t@no",
        "> said\n\n    @no",
    ],
)
def test_names_in_code_are_not_mentions(code: str) -> None:
    assert find_mentions(f"@first\n\n{code}") == ["first"]


@pytest.mark.parametrize(
    "prose",
    [
        "it's ` one backtick, @yes",
        "a `code` @yes `code`",
        "one ` here\n\nand @yes ` there",
        "```\ncode\n```\n@yes",
        "a paragraph\n    that goes on: @yes",
        "```not a fence``` @yes",
        "\\`@yes\\`",
    ],
)
def test_text_that_looks_like_code_has_mentions(prose: str) -> None:
    assert find_mentions(prose) == ["yes"]


def test_mentions_are_limited_and_only_valid_token_subjects() -> None:
    assert len(find_mentions(" ".join(f"@user{number}" for number in range(60)))) == MENTIONS_MAX
    assert find_mentions(f"@{'x' * 255} @{'y' * 256}") == ["x" * 255]


def test_unclosed_backticks_are_not_code() -> None:
    runs = " ".join("`" * length for length in range(1, 140))
    assert find_mentions(f"{runs} @yes") == ["yes"]
