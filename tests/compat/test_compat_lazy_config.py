"""Config files: loading, importing each other, saving, overriding, printing."""

import collections
import logging
from functools import partial
from pathlib import Path

import cloudpickle
import pytest
from detectron2.config import LazyCall, LazyConfig, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

FAMILY = """
from collections import Counter
from detectron2.config import LazyCall as L
from .parts.sizes import sizes, scale

model = L(Counter)(width=sizes.wide, depth="${..depth}", steps=[1, 2])
depth = 4
train = dict(lr=0.1 * scale, steps=(10, 20))
_hidden = dict(a=1)
number = 3
"""
SIZES = """
sizes = dict(wide=64)
scale = 2
"""
VARIANT = """
from ..family import model, train

model.width = 128
train.update(lr=0.5)
"""


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    files = {"family.py": FAMILY, "parts/sizes.py": SIZES, "variants/wide.py": VARIANT}
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_loading_keeps_configs_and_drops_everything_else(configs: Path) -> None:
    cfg = LazyConfig.load(str(configs / "family.py"))
    # `depth`, `number`, `scale` are no configs, `_hidden` is private; `sizes` was imported.
    assert set(cfg) == {"model", "train", "sizes"}
    assert cfg.model._target_ is collections.Counter
    assert cfg.train.lr == 0.2
    assert isinstance(cfg.train.steps, ListConfig) and list(cfg.train.steps) == [10, 20]


def test_keys_choose_what_is_returned(configs: Path) -> None:
    path = str(configs / "family.py")
    assert LazyConfig.load(path, "number") == 3
    train, number = LazyConfig.load(path, ("train", "number"))
    assert isinstance(train, DictConfig) and number == 3
    assert LazyConfig.load(path, "_hidden").a == 1
    with pytest.raises(KeyError):
        LazyConfig.load(path, "absent")


def test_a_variant_changes_its_own_copy_of_the_family(configs: Path) -> None:
    wide = LazyConfig.load(str(configs / "variants/wide.py"))
    assert (wide.model.width, wide.train.lr) == (128, 0.5)
    assert LazyConfig.load(str(configs / "family.py")).model.width == 64


def test_files_are_read_anew_at_every_load(configs: Path) -> None:
    path = str(configs / "variants/wide.py")
    LazyConfig.load(path)
    (configs / "parts/sizes.py").write_text("sizes = dict(wide=7)\nscale = 30\n")
    assert LazyConfig.load(str(configs / "family.py")).sizes.wide == 7


def test_load_rel_looks_beside_the_calling_file(configs: Path) -> None:
    (configs / "variants/relative.py").write_text(
        "from detectron2.config import LazyConfig\n"
        "train = LazyConfig.load_rel('../family.py', 'train')\n"
    )
    assert LazyConfig.load(str(configs / "variants/relative.py")).train.lr == 0.2


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("from .nothing import x", ImportError, "nothing.py does not exist"),
        ("from . import sizes", ImportError, "elative import"),
        ("from .parts import sizes", ImportError, "elative import"),
        ("from .broken import x", SyntaxError, "broken.py has syntax error"),
        ("x = = 1", SyntaxError, "config.py has syntax error"),
    ],
)
def test_a_bad_file_is_named(
    configs: Path, text: str, error: type[Exception], message: str
) -> None:
    (configs / "broken.py").write_text("def (")
    (configs / "config.py").write_text(text)
    with pytest.raises(error, match=message):
        LazyConfig.load(str(configs / "config.py"))


def test_only_python_and_yaml_are_configs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"(?i)python or yaml"):
        LazyConfig.load(str(tmp_path / "config.json"))


def test_a_failed_load_leaves_imports_as_they_were(configs: Path) -> None:
    (configs / "config.py").write_text("from .nothing import x")
    with pytest.raises(ImportError):
        LazyConfig.load(str(configs / "config.py"))
    with pytest.raises(ImportError, match="attempted relative import"):
        exec("from .family import model", {"__name__": "outside", "__package__": ""})


def test_a_saved_config_loads_and_builds_the_same(configs: Path, tmp_path: Path) -> None:
    cfg = LazyConfig.load(str(configs / "family.py"))
    cfg.depth = 4
    path = str(tmp_path / "saved.yaml")
    LazyConfig.save(cfg, path)
    again = LazyConfig.load(path)
    assert again.model._target_ == "collections.Counter"
    assert OmegaConf.to_container(again.model)["depth"] == "${..depth}"  # not resolved
    again.depth = 5
    assert instantiate(again.model) == collections.Counter(width=64, depth=5, steps=[1, 2])
    assert cfg.model._target_ is collections.Counter  # the original keeps its callable


def test_a_partial_survives_saving(tmp_path: Path) -> None:
    cfg = LazyCall(sorted)(key=partial(divmod, 7))
    path = str(tmp_path / "saved.yaml")
    LazyConfig.save(cfg, path)
    assert LazyConfig.load(path).key(2) == (3, 1)


def test_what_yaml_cannot_hold_is_also_pickled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = DictConfig({"f": lambda x: x + 1, "n": 2}, flags={"allow_objects": True})
    path = tmp_path / "saved.yaml"
    with caplog.at_level(logging.WARNING):
        LazyConfig.save(cfg, str(path))
    assert "saved" in caplog.text
    with open(f"{path}.pkl", "rb") as file:
        assert cloudpickle.load(file).f(1) == 2
    assert "n: 2" in path.read_text()


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("train.lr=0.3", "train.lr", 0.3),
        ("model.steps.1=9", "model.steps.1", 9),
        ("train.init_checkpoint=''", "train.init_checkpoint", ""),
        ("++train.new=[1,2]", "train.new", [1, 2]),
        ('train.name="5"', "train.name", "5"),
        ("train.name=five", "train.name", "five"),
        ("train.flag=true", "train.flag", True),
        ("train.none=null", "train.none", None),
        ("added.below.here=1", "added.below.here", 1),
    ],
)
def test_overrides_follow_hydras_grammar(
    configs: Path, override: str, key: str, value: object
) -> None:
    cfg = LazyConfig.load(str(configs / "family.py"))
    assert LazyConfig.apply_overrides(cfg, [override]) is cfg
    assert OmegaConf.select(cfg, key) == value


def test_overriding_a_dict_merges_it(configs: Path) -> None:
    cfg = LazyConfig.load(str(configs / "family.py"))
    LazyConfig.apply_overrides(cfg, ["train={lr: 1.5}"])
    assert cfg.train.lr == 1.5 and list(cfg.train.steps) == [10, 20]


def test_bad_overrides_are_refused(configs: Path) -> None:
    cfg = LazyConfig.load(str(configs / "family.py"))
    with pytest.raises(KeyError, match=r"train\.lr"):
        LazyConfig.apply_overrides(cfg, ["train.lr.x=1"])
    with pytest.raises(NotImplementedError, match="delet"):
        LazyConfig.apply_overrides(cfg, ["~train.lr"])
    assert cfg.train.lr == 0.2


def test_to_py_prints_one_assignment_for_each_object() -> None:
    pytest.importorskip("black")
    cfg = DictConfig(
        {"b": {"y": 1, "x": [1, "z"]}, "a": LazyCall(collections.Counter)(k={"i": 1}, f=None)}
    )
    assert LazyConfig.to_py(cfg) == (
        'cfg.a = collections.Counter(f=None, k={"i": 1})\ncfg.b.x = [1, "z"]\ncfg.b.y = 1\n'
    )
    assert LazyConfig.to_py(cfg, prefix="c.").startswith("c.a = ")
