"""From described calls to objects, and from objects to dotted paths."""

import collections
import dataclasses
import itertools
import logging
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall, instantiate
from detectron2.config.instantiate import dump_dataclass
from detectron2.utils.registry import _convert_target_to_string, locate
from omegaconf import DictConfig, ListConfig


@dataclasses.dataclass
class Point:
    x: int
    y: int = 2


@dataclasses.dataclass
class Segment:
    ends: list[Point]
    middle: Point


class Holder:
    def __init__(self, **kwargs: Any) -> None:
        self.kwargs = kwargs

    class Inner:
        pass


def test_a_lazy_call_is_a_config_that_can_be_changed() -> None:
    call = LazyCall(Fraction)(numerator=1, denominator=2)
    call.denominator = 4
    assert isinstance(call, DictConfig) and call._target_ is Fraction
    assert instantiate(call) == Fraction(1, 4)


def test_a_lazy_call_takes_callables_paths_and_descriptions_only() -> None:
    assert instantiate(LazyCall("fractions.Fraction")(numerator=3)) == 3
    with pytest.raises(TypeError, match="LazyCall"):
        LazyCall(3)
    with pytest.raises(TypeError):
        LazyCall(Fraction)(1, 2)


def test_a_target_may_itself_be_described() -> None:
    call = LazyCall(LazyCall(collections.namedtuple)(typename="P", field_names=["a"]))(a=5)
    assert instantiate(call).a == 5


def test_only_described_calls_and_lists_are_entered() -> None:
    call = LazyCall(Holder)(
        plain={"inner": LazyCall(Fraction)(numerator=1)},
        listed=[LazyCall(Fraction)(numerator=2), 7],
        nested=LazyCall(Holder)(n=LazyCall(Fraction)(numerator=3)),
    )
    built = instantiate(call).kwargs
    assert isinstance(built["plain"], DictConfig) and built["plain"].inner._target_ is Fraction
    assert isinstance(built["listed"], ListConfig) and list(built["listed"]) == [2, 7]
    assert built["nested"].kwargs["n"] == 3
    assert instantiate([LazyCall(Fraction)(numerator=2)]) == [2]
    untouched = {"a": LazyCall(Fraction)()}
    assert instantiate(untouched) is untouched


def test_interpolations_are_resolved_when_building() -> None:
    call = LazyCall(Holder)(a=1, b="${a}", c=LazyCall(Holder)(d="${..a}"))
    call.a = 8
    built = instantiate(call).kwargs
    assert built["b"] == 8 and built["c"].kwargs["d"] == 8


def test_dataclasses_are_described_by_their_path_and_built_again() -> None:
    call = LazyCall(Point)(x=1)
    assert call._target_ == f"{__name__}.Point"
    held = LazyCall(Holder)(point=Point(4))
    assert instantiate(held).kwargs["point"] == Point(4)


def test_a_dumped_dataclass_is_built_again_with_all_it_holds() -> None:
    segment = Segment([Point(1), Point(3, 4)], middle=Point(2, 3))
    dumped = dump_dataclass(segment)
    assert dumped["middle"] == {"_target_": f"{__name__}.Point", "x": 2, "y": 3}
    assert [end["y"] for end in dumped["ends"]] == [2, 4]
    with pytest.raises(AssertionError):
        dump_dataclass(Point)


def test_wrong_arguments_name_the_class(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(TypeError, match="wrong"):
        instantiate(LazyCall(Fraction)(wrong=1))
    assert "fractions.Fraction" in caplog.text


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (torch.optim.SGD, "torch.optim.SGD"),
        (torch.nn.Conv2d, "torch.nn.Conv2d"),
        (itertools.count, "itertools.count"),
        (len, "builtins.len"),
        (Holder.Inner, f"{__name__}.Holder.Inner"),
    ],
)
def test_paths_are_as_short_as_possible_and_lead_back(target: object, path: str) -> None:
    assert _convert_target_to_string(target) == path
    assert locate(path) is target


# What configs name; "modeling.FPN" stands for the object behind that path.
NAMED_IN_CONFIGS = [
    "modeling.FPN",
    "modeling.GeneralizedRCNN",
    "modeling.ResNet",
    "modeling.backbone.resnet.BasicStem",
    "modeling.backbone.fpn.LastLevelMaxPool",
    "modeling.anchor_generator.DefaultAnchorGenerator",
    "modeling.box_regression.Box2BoxTransform",
    "modeling.matcher.Matcher",
    "modeling.poolers.ROIPooler",
    "modeling.proposal_generator.RPN",
    "modeling.proposal_generator.StandardRPNHead",
    "modeling.roi_heads.StandardROIHeads",
    "modeling.roi_heads.FastRCNNConvFCHead",
    "modeling.roi_heads.FastRCNNOutputLayers",
    "modeling.roi_heads.MaskRCNNConvUpsampleHead",
    "data.DatasetMapper",
    "data.build_detection_train_loader",
    "data.build_detection_test_loader",
    "data.get_detection_dataset_dicts",
    "data.transforms.ResizeShortestEdge",
    "data.transforms.RandomFlip",
    "data.samplers.TrainingSampler",
    "data.samplers.RepeatFactorTrainingSampler",
    "evaluation.COCOEvaluator",
    "layers.ShapeSpec",
    "layers.Conv2d",
    "solver.WarmupParamScheduler",
    "solver.LRMultiplier",
    "solver.build.get_default_optimizer_params",
    "engine.hooks.EvalHook",
    "checkpoint.DetectionCheckpointer",
    "utils.events.JSONWriter",
    "structures.Boxes",
]


def test_paths_in_saved_configs_are_those_of_the_real_package(stored: Callable[..., Any]) -> None:
    objects = [locate(f"detectron2.{name}") for name in NAMED_IN_CONFIGS]
    paths = [_convert_target_to_string(named) for named in objects]
    assert [locate(path) for path in paths] == objects
    assert paths == stored("config_paths", {"paths": np.array(paths)})["paths"].tolist()


def test_locate_says_what_it_cannot_find() -> None:
    with pytest.raises(Exception, match="no_such_module_at_all"):
        locate("no_such_module_at_all.thing")
    with pytest.raises(ImportError):
        locate("torch.optim.NoSuchOptimizer")
