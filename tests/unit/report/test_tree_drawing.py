from xml.etree import ElementTree

from megatron_trace.report.text_fitting import text_width
from megatron_trace.report.tree_drawing import draw_tree
from megatron_trace.report.tree_text import action_parts, outcome
from megatron_trace.tree import RolloutTree
from tests.unit.report.fake_run import answer, decode, root, search, turn

NS = "{http://www.w3.org/2000/svg}"


def drawn(tree: RolloutTree) -> tuple[ElementTree.Element, list[set[str]]]:
    """The parsed picture, and the classes of its turns."""
    picture = ElementTree.fromstring(draw_tree(tree, decode))
    classes = [set(group.get("class", "").split()) for group in picture.iter(f"{NS}g")]
    return picture, [names for names in classes if "turn" in names]


def branched() -> RolloutTree:
    """A failed bare rollout with two continuations of its first turn."""
    tree = root(0.3)
    tree.graft(0, [search("Lyon", 0.8), answer("Graz", 0.0)])
    tree.graft(1, [search("France", 0.9), answer("Paris", 1.0)])
    tree.graft(1, [answer("Graz", 0.0)])
    return tree


def test_every_turn_is_one_node_and_continuations_look_different() -> None:
    picture, turns = drawn(branched())
    assert len(turns) == 6
    assert sum("continuation" in names for names in turns) == 3
    assert sum("leaf" in names for names in turns) == 3
    edges = [path for path in picture.iter(f"{NS}path") if "C" in path.get("d", "")]
    assert (
        sorted(edge.get("class") for edge in edges) == ["edge bare"] * 2 + ["edge continuation"] * 3
    )


def test_an_anchor_shows_how_many_continuations_it_got() -> None:
    picture, turns = drawn(branched())
    assert sum("anchor" in names for names in turns) == 1
    anchor = next(
        group for group in picture.iter(f"{NS}g") if "anchor" in group.get("class", "").split()
    )
    texts = [text.text for text in anchor.iter(f"{NS}text")]
    assert "+2" in texts and "33%" in texts and "predicted 80%" in texts


def test_tooltips_hold_the_whole_turn() -> None:
    picture, _ = drawn(branched())
    tooltips = [title.text for title in picture.iter(f"{NS}title")]
    assert any(
        "I need the country of Lyon." in text and "</information>" in text for text in tooltips
    )


def test_hostile_text_stays_text() -> None:
    tree = root(question='<script>alert("x")</script> & \x00 \ud800')
    tree.graft(0, [turn("<answer> <script>y</script> </answer>", terminal=True, reward=0.0)])
    picture = draw_tree(tree, decode)
    ElementTree.fromstring(picture)
    assert "<script" not in picture


def test_trees_of_any_shape_can_be_drawn() -> None:
    deep = root()
    deep.graft(0, [*(search("Lyon", 0.5) for _ in range(30)), answer("Paris", 1.0)])
    for tree in (root(None), deep):
        _, turns = drawn(tree)
        assert len(turns) == len(tree.turns)


def test_nodes_do_not_overlap() -> None:
    picture, _ = drawn(branched())
    places = set()
    for group in picture.iter(f"{NS}g"):
        if "turn" in group.get("class", "").split():
            box = group.find(f"{NS}rect")
            assert box is not None
            places.add((box.get("x"), box.get("y")))
    assert len(places) == 6


def test_the_outcome_tells_which_stage_found_the_contrast() -> None:
    assert outcome(branched()).endswith("2 continuations at 1 anchor: they found the contrast")


def test_an_action_without_tags_is_shown_as_it_is() -> None:
    assert action_parts("so <search> Lyon </search>") == ("search", "Lyon")
    assert action_parts(" no tag ") == ("text", "no tag")


def test_nothing_reaches_beyond_the_picture() -> None:
    picture, _ = drawn(branched())
    width = float(picture.get("width", "0"))
    for text in picture.iter(f"{NS}text"):
        if text.get("text-anchor") is None:
            size = float(text.get("font-size", "0"))
            assert float(text.get("x", "0")) + text_width(text.text or "", size) < width - 10
