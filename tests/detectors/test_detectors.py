"""H-Deformable-DETR and DINO as detectors that learn."""

from pathlib import Path
from typing import Any

import pytest
import torch
from detector_inputs import image_input
from detectron2.config import LazyConfig, instantiate
from gradients import without_gradient
from omegaconf import OmegaConf
from torch import nn

from queryseg.detectors import HDETR, ClassNumbering, TwoStageDetector, build_dino
from queryseg.detectors.class_numbering import COCO_CATEGORY_IDS
from queryseg.detectors.h_detr import repeat_targets
from queryseg.engine import load_config
from queryseg.engine.config import installed_configs
from queryseg.matching import BoxTargets

CONFIGS = [name for name in installed_configs() if name.startswith("detectors/")]


def small_hdetr(**changes: Any) -> HDETR:
    cfg = load_config("detectors/hdetr_tiny.py")
    cfg.model.update(changes)
    torch.manual_seed(0)
    return instantiate(cfg.model)


def small_dino(**changes: Any) -> TwoStageDetector:
    cfg = load_config("detectors/hdetr_tiny.py").model
    arguments = {
        key: instantiate(value) if OmegaConf.is_config(value) else value
        for key, value in cfg.items()
        if key not in ("_target_", "num_one_to_many", "repeats", "reference_eps")
        and not key.startswith("position")
    }
    torch.manual_seed(0)
    return build_dino(**{**arguments, "denoising_queries": 6, **changes})


MODELS = {
    "hdetr": small_hdetr,
    "hdetr alone": lambda: small_hdetr(num_one_to_many=0),
    "dino": small_dino,
    "dino of detrex": lambda: small_dino(share_heads=False, extra_label=False),
    "dino without denoising": lambda: small_dino(denoising_queries=0),
}


@pytest.mark.parametrize("counts", [(2, 1), (1, 0), (0, 0)])
@pytest.mark.parametrize("kind", MODELS)
def test_every_trainable_parameter_gets_a_finite_gradient(
    kind: str, counts: tuple[int, int]
) -> None:
    model = MODELS[kind]().train()
    inputs = [image_input(64, 96 - 32 * i, count, i) for i, count in enumerate(counts)]
    losses = model(inputs)
    assert all(value.isfinite() for value in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    assert without_gradient(model) == []


def test_losses_have_a_name_for_each_layer_branch_and_stage() -> None:
    names = set(small_hdetr().train()([image_input(64, 64)]))
    terms = ("class", "box", "giou")
    endings = ("", "_0", "_enc", "_one2many", "_0_one2many")
    assert names == {f"loss_{term}{ending}" for term in terms for ending in endings}
    names = set(small_dino().train()([image_input(64, 64)]))
    endings = ("", "_0", "_enc", "_dn", "_0_dn")
    assert names == {f"loss_{term}{ending}" for term in terms for ending in endings}


def test_branches_of_training_do_not_see_each_other() -> None:
    model = small_hdetr().eval()
    feats = torch.randn(1, 90, 64)
    blind = model.isolation(feats)
    assert blind is not None
    assert blind[:30, :30].all() and blind[30:, 30:].all()
    assert not blind[:30, 30:].any() and not blind[30:, :30].any()
    inputs = [image_input(64, 96)]
    images = model.preprocess(inputs)
    with torch.no_grad():
        _, learnt = model.learn(images, model.targets(inputs)) if model.training else (0, None)
        free = model.detect(images)
        model.proposals.training = True  # proposals of training, everything else in evaluation
        _, learnt = model.learn(images, model.targets(inputs))
    torch.testing.assert_close(learnt.boxes_cxcywh_norm, free.boxes_cxcywh_norm)
    torch.testing.assert_close(learnt.class_probs, free.class_probs)


def test_noisy_queries_are_hidden_from_the_others_and_from_other_groups() -> None:
    model = small_dino(denoising_queries=4)
    inputs = [image_input(64, 64, 2), image_input(64, 64, 1, seed=1)]
    targets = model.targets(inputs)
    noisy = model.denoising(targets)
    assert (noisy.num_groups, noisy.slots, noisy.count) == (2, 2, 8)
    visible = noisy.visibility(5)
    group = torch.tensor([0] * 4 + [1] * 4 + [2] * 5)
    for query in range(13):
        for other in range(13):
            expected = other >= 8 or (query < 8 and group[query] == group[other])
            assert bool(visible[query, other]) == expected
    pairs = noisy.assignment(targets)
    assert pairs.src_idx.tolist() == [0, 1, 0, 4, 5, 4]
    assert pairs.tgt_idx.tolist() == [0, 1, 2] * 2


def test_noise_of_boxes_stays_within_its_bounds() -> None:
    model = small_dino(denoising_queries=40)
    assert model.denoising is not None
    box = torch.tensor([[0.5, 0.5, 0.2, 0.4]])
    torch.manual_seed(1)
    noisy = model.denoising._noisy_boxes(box.expand(200, 2, 1, 4))
    shift = (noisy[..., :2] - box[:, :2]).abs() / (box[:, 2:] / 2 * 0.4)
    assert 0.8 < shift[:, 0].max() <= 1
    assert 1.2 < shift[:, 1].max() <= 2
    corner = noisy[:, 1, 0, :2] - noisy[:, 1, 0, 2:] / 2
    moved = (corner - torch.tensor([0.4, 0.3])).abs() / torch.tensor([0.04, 0.08])
    assert moved.min() >= 1 - 1e-4 and moved.max() <= 2 + 1e-4


def test_targets_are_repeated_image_by_image() -> None:
    targets = BoxTargets(
        torch.tensor([3, 4, 5]), torch.arange(12.0).view(3, 4), torch.ones(2, 2), (2, 1)
    )
    repeated = repeat_targets(targets, 3)
    assert repeated.labels.tolist() == [3, 4, 3, 4, 3, 4, 5, 5, 5]
    assert repeated.sizes == (6, 3)
    assert repeated.boxes_xyxy_abs[:, 0].tolist() == [0, 4, 0, 4, 0, 4, 8, 8, 8]


def test_classes_are_numbered_as_in_the_files() -> None:
    coco = ClassNumbering(num_classes=80)
    assert coco.num_outputs == 91
    assert coco.outputs.tolist() == list(COCO_CATEGORY_IDS)
    assert len(COCO_CATEGORY_IDS) == 80
    assert coco.classes[[0, 1, 12, 13, 90]].tolist() == [-1, 0, -1, 11, 79]
    assert ClassNumbering(num_classes=80, kind="contiguous").num_outputs == 80
    assert ClassNumbering(num_classes=6).num_outputs == 6
    with pytest.raises(ValueError, match="class numbering is 'other'"):
        ClassNumbering(num_classes=6, kind="other")  # type: ignore[arg-type]


def test_outputs_that_stand_for_no_class_are_left_out() -> None:
    model = small_hdetr(num_classes=80, num_one_to_many=0).eval()
    with torch.no_grad():
        model.class_heads[-1].bias[12] = 9.0
        (result,) = model([image_input(64, 64)])
    instances = result["instances"]
    assert len(instances) < model.max_detections
    assert (instances.pred_classes >= 0).all() and (instances.pred_classes < 80).all()


@pytest.mark.parametrize("kind", ["hdetr", "dino"])
def test_batch_gives_what_single_images_give(kind: str) -> None:
    model = MODELS[kind]().eval()
    inputs = [image_input(64, 96, seed=3), image_input(64, 96, seed=4)]
    with torch.no_grad():
        images = model.preprocess(inputs)
        batch = model.detect(images)
        for index, one in enumerate(inputs):
            alone = model.detect(model.preprocess([one]))
            torch.testing.assert_close(batch.query_feats[index], alone.query_feats[0])
            torch.testing.assert_close(batch.boxes_cxcywh_norm[index], alone.boxes_cxcywh_norm[0])


@pytest.mark.parametrize("size", [(33, 200), (64, 64), (1, 90)])
def test_any_size_is_detected_in(size: tuple[int, int]) -> None:
    model = small_hdetr().eval()
    with torch.no_grad():
        (result,) = model([{**image_input(*size, count=0), "height": 77, "width": 50}])
    instances = result["instances"]
    assert instances.image_size == (77, 50)
    assert instances.scores.tolist() == sorted(instances.scores.tolist(), reverse=True)
    assert ((instances.scores >= 0) & (instances.scores <= 1)).all()


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict().items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_config_saved_and_loaded_again_builds_the_same_model(name: str, tmp_path: Path) -> None:
    cfg = load_config(name)
    assert set(cfg) == {"model", "dataloader", "optimizer", "lr_multiplier", "train"}
    LazyConfig.save(cfg, str(tmp_path / "saved.yaml"))
    again = load_config(tmp_path / "saved.yaml")
    assert not list(tmp_path.glob("*.pkl"))
    with torch.device("meta"):
        first, second = instantiate(cfg.model), instantiate(again.model)
    assert _shapes(first) == _shapes(second)
    cfg.model.num_classes = 11
    with torch.device("meta"):
        assert instantiate(cfg.model).class_heads[0].weight.shape[0] == 11


RECIPES = [name for name in CONFIGS if not name.endswith("_tiny.py")]


@pytest.mark.parametrize("name", RECIPES)
def test_steps_are_epochs_of_all_images_of_coco_with_objects_or_without(name: str) -> None:
    cfg = load_config(name)
    assert cfg.dataloader.train.dataset.filter_empty is False
    steps_of_epoch = -(-118_287 // cfg.train.total_batch_size)
    epochs = 36 if "hdetr" in name else 12
    assert cfg.train.max_iter == epochs * steps_of_epoch
    assert cfg.dataloader.train.mapper.augmentations[0].crop_max_size >= 7 * 600


@pytest.mark.parametrize(
    ("name", "rate"),
    [("hdetr_swin_t", 0.2), ("hdetr_swin_l_n900", 0.5), ("dino_swin_l_4scale", 0.2)],
)
def test_paths_of_a_swin_are_dropped_as_often_as_in_the_release(name: str, rate: float) -> None:
    assert load_config(f"detectors/{name}.py").model.backbone.drop_path_rate == rate


def test_all_matrices_of_the_transformer_of_dino_start_xavier_uniform() -> None:
    model = small_dino(num_queries=200)
    shapes = {
        "queries.content.weight": (200, 64),
        "decoder.query_position.mlp.layers.0.weight": (64, 128),
        "decoder.query_position.mlp.layers.1.weight": (64, 64),
        "proposals.linear.weight": (64, 64),
        "decoder.layers.0.self_attention.attention.in_proj_weight": (192, 64),
        "decoder.layers.0.ffn.linear1.weight": (128, 64),
    }
    for name, shape in shapes.items():
        weight = model.get_parameter(name)
        assert weight.shape == shape
        bound = (6 / sum(shape)) ** 0.5
        assert 0.99 * bound < weight.abs().max() <= bound, name


def test_noisy_losses_count_the_groups_of_their_own_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other process has 60 instances; an image so full leaves it with a single group."""
    model = small_dino(denoising_queries=12).train()
    inputs = [image_input(64, 64, 2), image_input(64, 64, 1, seed=1)]

    def losses() -> dict[str, torch.Tensor]:
        torch.manual_seed(2)
        return model(inputs)

    alone = losses()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: total.add_(60))
    together = losses()
    share = 3 / ((3 + 60) / 2)
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value * share, rtol=1e-5, atol=1e-6)
