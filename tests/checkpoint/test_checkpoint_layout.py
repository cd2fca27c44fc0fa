"""Naming rules: both directions, what they refuse, and how a layout is found."""

import pytest
import torch

from queryseg.checkpoint import registry
from queryseg.checkpoint.layout import Layout

LAYOUT = Layout(
    "toy",
    signature=("head.heads.{i}.cls.weight", "head.query.weight"),
    rules=(
        ("head.heads.{i}.cls.{j}.weight", "decoder.{i}.class_embed.{j}.kernel"),
        ("head.heads.{i}.", "decoder.{i}."),
        ("head.query.weight", "decoder.query_feats.weight"),
        ("backbone.res{stage}.{i}.", "backbone.layer{stage}.block{i}."),
        ("backbone.", "backbone."),
    ),
    ignored=("criterion.", "head.alias.weight"),
)

PAIRS = [
    ("head.heads.3.cls.10.weight", "decoder.3.class_embed.10.kernel"),
    ("head.heads.3.cls.weight", "decoder.3.cls.weight"),
    ("head.query.weight", "decoder.query_feats.weight"),
    ("backbone.res4.22.conv1.norm.bias", "backbone.layer4.block22.conv1.norm.bias"),
    ("backbone.stem.conv1.weight", "backbone.stem.conv1.weight"),
]


@pytest.mark.parametrize(("official", "ours"), PAIRS)
def test_a_name_maps_there_and_back(official: str, ours: str):
    assert LAYOUT.to_ours(official) == ours
    assert LAYOUT.to_official(ours) == official


def test_ignored_and_unknown_names_have_no_counterpart():
    assert LAYOUT.to_ours("criterion.empty_weight") is None
    assert LAYOUT.is_ignored("criterion.empty_weight")
    assert LAYOUT.to_ours("other.weight") is None
    assert not LAYOUT.is_ignored("other.weight")
    assert LAYOUT.to_official("other.weight") is None


def test_a_whole_name_rule_does_not_match_a_longer_name():
    assert LAYOUT.to_ours("head.query.weight_g") is None
    assert LAYOUT.to_ours("head.heads.x.weight") is None, "placeholders are integers"


def test_a_dot_in_a_pattern_is_not_a_wildcard():
    assert Layout("dots", (), (("a.b", "c"),)).to_ours("axb") is None


def test_a_placeholder_used_twice_must_have_one_value():
    layout = Layout("twice", (), (("a.{i}.b.{i}.", "c.{i}."),))
    assert layout.to_ours("a.1.b.1.w") == "c.1.w"
    assert layout.to_ours("a.1.b.2.w") is None
    assert layout.to_official("c.7.w") == "a.7.b.7.w"


def test_an_empty_pattern_moves_everything_below_a_prefix():
    layout = Layout("all", (), (("", "detector."),))
    assert layout.to_ours("backbone.conv1.weight") == "detector.backbone.conv1.weight"
    assert layout.to_official("detector.neck.bias") == "neck.bias"


@pytest.mark.parametrize(("official", "ours"), [("a.", "b"), ("a", ""), ("a.{i}", "b.{j}")])
def test_a_rule_whose_sides_do_not_fit_is_refused(official: str, ours: str):
    with pytest.raises(ValueError, match="layout 'broken'"):
        Layout("broken", (), ((official, ours),))


def test_a_state_dict_converts_and_converts_back():
    official = {name: torch.full((2,), float(i)) for i, (name, _) in enumerate(PAIRS)}
    extra = {"criterion.empty_weight": torch.ones(3), "ema.step": torch.zeros(1)}
    converted = LAYOUT.convert({**official, **extra})
    assert list(converted) == [ours for _, ours in PAIRS] + ["ema.step"]
    assert all(converted[ours] is official[name] for name, ours in PAIRS)
    back = LAYOUT.convert_back(converted)
    assert list(back) == list(official)
    assert all(back[name] is official[name] for name in official)


def test_the_first_of_two_aliases_is_kept():
    layout = Layout("alias", (), (("a.", "x."), ("b.", "x.")))
    first, second = torch.zeros(1), torch.ones(1)
    assert layout.convert({"a.w": first, "b.w": second}) == {"x.w": first}
    assert layout.to_official("x.w") == "a.w"


def test_a_layout_is_recognised_by_its_whole_signature(monkeypatch: pytest.MonkeyPatch):
    narrow = Layout("narrow", ("head.query.weight",), (("head.query.weight", "q.weight"),))
    monkeypatch.setattr(registry, "known_layouts", lambda: (narrow, LAYOUT))
    names = [official for official, _ in PAIRS]
    assert registry.find_layout(names) is LAYOUT, "the one that explains more names wins"
    assert registry.find_layout(["head.query.weight"]) is narrow
    assert registry.find_layout(["backbone.stem.conv1.weight"]) is None


def test_layouts_of_the_projects_are_found_by_walking():
    layouts = registry.known_layouts()
    assert all(isinstance(layout, Layout) for layout in layouts)
    assert len({layout.name for layout in layouts}) == len(layouts)
