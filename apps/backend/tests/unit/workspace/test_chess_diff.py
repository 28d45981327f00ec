"""The comparison of two versions of a study."""

from uuid import UUID

from backend.workspace.chess import (
    PATHS_MAX,
    Annotation,
    ChapterContent,
    ChapterRef,
    ChapterRenamed,
    LineRef,
    MoveTree,
    ReadGame,
    add_move,
    annotate,
    delete_move,
    diff,
    promote,
    read_games,
)
from hypothesis import given

from tests.fixtures.chess_trees import PROPERTY_SETTINGS, chapters

FIRST, SECOND, THIRD = (UUID(int=one) for one in (1, 2, 3))


def tree_of(text: str) -> MoveTree:
    (game,) = read_games(text.encode())
    assert isinstance(game, ReadGame)
    return game.tree


def chapter(text: str = "1. e4 *", chapter_id: UUID = FIRST, title: str = "One") -> ChapterContent:
    return ChapterContent(chapter_id=chapter_id, title=title, headers={}, tree=tree_of(text))


def test_diff_lists_added_deleted_renamed_and_reordered_chapters() -> None:
    second, third = chapter(chapter_id=SECOND, title="Two"), chapter(chapter_id=THIRD, title="Three")
    found = diff([chapter(), second], [chapter(title="Uno"), third])
    assert found.removed == (ChapterRef(chapter_id=SECOND, title="Two"),)
    assert found.added == (ChapterRef(chapter_id=THIRD, title="Three"),)
    assert found.renamed == (ChapterRenamed(chapter_id=FIRST, before="One", after="Uno"),)
    assert not found.reordered
    assert found.changed == ()
    assert diff([chapter(), second, third], [third, chapter()]).reordered


def test_diff_lists_added_and_deleted_moves_with_those_after_them() -> None:
    before = chapter("1. e4 e5 (1... c5 2. Nf3 d6) 2. Nf3 *")
    after = chapter("1. e4 e5 2. Nf3 (2. f4 exf4) 2... Nc6 *")
    (found,) = diff([before], [after]).changed
    assert found.moves_added == (
        LineRef(path="e2e4.e7e5.g1f3.b8c6", moves=1),
        LineRef(path="e2e4.e7e5.f2f4", moves=2),
    )
    assert found.moves_removed == (LineRef(path="e2e4.c7c5", moves=3),)
    assert (found.moves_added_count, found.moves_removed_count) == (2, 1)
    assert (found.annotated, found.reordered, found.headers) == ((), (), ())


def test_diff_separates_annotations_order_and_headers() -> None:
    before = chapter("{Start} 1. e4 e5 (1... c5) (1... e6) *")
    tree = promote(annotate(before.tree, "e2e4.c7c5", Annotation(nags=(1,))), "e2e4.e7e6")
    tree = annotate(tree, "", Annotation())
    after = ChapterContent(chapter_id=FIRST, title="One", headers={"Round": "1"}, tree=tree)
    (found,) = diff([before], [after]).changed
    assert found.annotated == ("", "e2e4.c7c5")
    assert found.reordered == ("e2e4",)
    assert found.headers == ("Round",)
    assert (found.annotated_count, found.reordered_count) == (2, 1)
    assert (found.moves_added, found.moves_removed) == ((), ())


def test_long_lists_are_cut_and_counted() -> None:
    circle = ("g1f3", "g8f6", "f3g1", "f6g8")
    long = tree_of("Nf3 Nf6 Ng1 Ng8 " * (PATHS_MAX // 4) + "Nf3 Nf6 *")
    assert [one.uci for one in long.moves[:4]] == [*circle]
    said = long.with_annotations({at: Annotation(text="x") for at in range(len(long.moves))})
    (found,) = diff(
        [ChapterContent(chapter_id=FIRST, title="", headers={}, tree=long)],
        [ChapterContent(chapter_id=FIRST, title="", headers={}, tree=said)],
    ).changed
    assert len(found.annotated) == PATHS_MAX
    assert found.annotated_count == PATHS_MAX + 2


@PROPERTY_SETTINGS
@given(chapters())
def test_diff_of_equal_states_is_empty_and_reverse_diff_is_symmetric(
    made: tuple[dict[str, str], MoveTree],
) -> None:
    headers, tree = made
    whole = ChapterContent(chapter_id=FIRST, title="x", headers=headers, tree=tree)
    assert diff([whole], [whole]).changed == ()
    for index in range(len(tree.moves)):
        cut = ChapterContent(
            chapter_id=FIRST, title="x", headers=headers, tree=delete_move(tree, tree.path_of(index))
        )
        (there,), (back,) = diff([cut], [whole]).changed, diff([whole], [cut]).changed
        line = LineRef(path=tree.path_of(index), moves=len(tree.moves) - len(cut.tree.moves))
        assert there.moves_added == back.moves_removed == (line,)
        assert there.moves_removed == back.moves_added == ()


def test_study_can_be_compared_with_an_empty_one() -> None:
    added = add_move(MoveTree(), {}, "", "e4").tree
    mine = ChapterContent(chapter_id=FIRST, title="One", headers={}, tree=added)
    assert diff([], [mine]).added == (ChapterRef(chapter_id=FIRST, title="One"),)
    assert diff([], []) == diff([mine], [mine])
