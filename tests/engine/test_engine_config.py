"""Loading configs by path and by name, overrides, and what is said about mistakes."""

from pathlib import Path
from typing import Any

import pytest
from detectron2.config import LazyConfig, instantiate
from tiny_training import TinyModel, tiny_config

from queryseg.engine import ConfigError, apply_overrides, load_config
from queryseg.engine.config import check_config, find_config, installed_configs

CONFIGS = Path(__file__).parents[2] / "configs"


def test_a_path_a_name_and_a_checkout_path_find_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = (CONFIGS / "common" / "train.py").resolve()
    assert find_config(expected).resolve() == expected
    monkeypatch.chdir(tmp_path)  # no checkout here, as after installing a wheel
    assert find_config("common/train.py").resolve() == expected
    assert find_config("configs/common/train.py").resolve() == expected
    assert load_config("common/train.py").train.total_batch_size == 16


def test_an_existing_path_wins_over_an_installed_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "train.py").write_text("train = dict(max_iter=5)\n")
    monkeypatch.chdir(tmp_path)
    assert load_config("common/train.py").train == {"max_iter": 5}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fastinst/fastinst_r50_d2.py", "does not exist, .*fastinst/fastinst_r50_d"),
        ("nowhere/at_all.py", "does not exist"),
        ("fastinst/fastinst_r50_d1", "must end in one of .py, .yaml, .yml"),
        ("", "no config file given: pass --config-file"),
    ],
)
def test_a_config_that_is_not_there_is_named_with_the_nearest(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(name)


def test_installed_configs_leaves_out_the_shared_pieces() -> None:
    names = list(installed_configs())
    assert "fastinst/fastinst_r50_d1.py" in names
    assert not [name for name in names if name.startswith("common/")]


def test_a_yaml_that_a_run_saved_loads_and_builds_the_same(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path, "model.num_classes=5")
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    loaded = load_config(tmp_path / "config.yaml")
    assert loaded.dataloader.train.total_batch_size == 4
    model = instantiate(loaded.model)
    assert isinstance(model, TinyModel)
    assert model.num_classes == 5
    assert list(tmp_path.iterdir()) == [tmp_path / "config.yaml"]  # no pickle beside it


def test_overrides_change_values_lists_and_arguments_that_have_a_default(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path)
    apply_overrides(
        cfg,
        [
            "train.max_iter=7",
            "optimizer.betas.1=0.5",
            "model.gain=2.0",
            "train.init_checkpoint=''",
            "optimizer.amsgrad=True",
            "+optimizer.params.lr_multipliers.class_embed=2.0",
        ],
    )
    assert cfg.train.max_iter == 7
    assert cfg.optimizer.betas[1] == 0.5
    assert cfg.model.gain == 2.0
    assert cfg.train.init_checkpoint == ""
    assert cfg.optimizer.amsgrad is True
    assert cfg.optimizer.params.lr_multipliers == {"backbone": 0.1, "class_embed": 2.0}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.max_itr=7", r"unknown config key 'train.max_itr'; did you mean train.max_iter"),
        ("trian.max_iter=7", r"'trian.max_iter'; did you mean train"),
        ("max_iter=7", r"'max_iter'; did you mean train.max_iter"),
        ("lr=1e-3", r"'lr'; did you mean optimizer.params.lr or optimizer.lr|optimizer.lr"),
        ("model.num_clases=7", r"'model.num_clases': TinyModel takes no .*mean num_classes"),
        ("optimizer.betas.2=7", r"'optimizer.betas' is a list with 2 entries"),
        ("optimizer.params.lr_multipliers.x=1", r"To add a new key write \+optimizer"),
        ("train.max_iter", r"cannot read the override 'train.max_iter': write key=value"),
        ("~train.max_iter", r"cannot be deleted"),
        ("train.max_iter=many", r"'train.max_iter' must be of type int like 6: got 'many'"),
        ("optimizer.lr=high", r"'optimizer.lr' must be of type float like .*: got 'high'"),
        ("train.max_iter=1.5", r"'train.max_iter' must be of type int"),
        ("train.amp.enabled=1", r"'train.amp.enabled' must be of type bool"),
        ("train.amp=True", r"'train.amp' is a section with enabled, dtype: got True"),
        ("+train.new=1", r"unknown config key 'train.new'"),
        ("train.max_iter.x=1", r"'train.max_iter' is a value, not a section"),
    ],
)
def test_a_wrong_override_gives_one_error_that_names_the_cure(
    tmp_path: Path, override: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        apply_overrides(tiny_config(tmp_path), [override])


def test_a_number_may_become_a_reference_or_nothing(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path)
    apply_overrides(cfg, ["train.seed='${train.log_period}'", "optimizer.lr=null"])
    assert cfg.train.seed == cfg.train.log_period
    assert cfg.optimizer.lr is None


def test_a_number_without_a_point_is_fine_for_a_float(tmp_path: Path) -> None:
    cfg = apply_overrides(tiny_config(tmp_path), ["train.clip_grad.max_norm=1"])
    assert cfg.train.clip_grad.max_norm == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train = dict(max_itr=5)", "unknown config key 'train.max_itr'; did you mean"),
        (
            "from detectron2.config import LazyCall as L\nfrom torch.nn import Linear\n"
            "model = dict(parts=[L(Linear)(in_feature=1, out_features=2)])",
            r"'model.parts.0.in_feature': Linear takes no argument .*mean in_features",
        ),
        ("model = dict(", "syntax error"),
    ],
)
def test_a_wrong_key_in_a_file_is_found_when_it_is_loaded(
    tmp_path: Path, text: str, words: str
) -> None:
    file = tmp_path / "wrong.py"
    file.write_text(text)
    with pytest.raises((ConfigError, SyntaxError), match=words):
        load_config(file)


def test_interpolations_string_targets_and_open_arguments_pass_the_check(tmp_path: Path) -> None:
    cfg: Any = tiny_config(tmp_path)
    cfg.model["_target_"] = "torch.nn.Linear"
    with pytest.raises(ConfigError, match="Linear takes no argument 'num_classes'"):
        check_config(cfg)
    cfg.model["_target_"] = "builtins.dict"
    check_config(cfg)
    assert cfg.model.num_classes == 3
