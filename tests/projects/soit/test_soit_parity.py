"""SOIT against the golden data of the official release, through the parity tool."""

import json
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate

from queryseg.engine import load_config
from queryseg.parity import ParityReport, fill_by_official_names
from queryseg.projects.soit.convert import LAYOUTS
from queryseg.projects.soit.model import SOIT
from queryseg.projects.soit.parity_inputs import IMAGES
from queryseg.projects.soit.parity_training import TrainingStep, compare_gradient_norms
from queryseg.tools.console import ToolError
from queryseg.tools.parity import compare, read_golden

GOLDEN = Path(__file__).parents[2] / "golden" / "soit"
CONFIG = "soit/soit_r50_50ep.py"


@pytest.mark.parametrize(
    ("bundle", "arrays"),
    [("iat", 16), ("maskenc", 5), ("full_A", 28), pytest.param("loss", 55, marks=pytest.mark.slow)],
)
def test_every_array_of_the_release_is_reproduced(bundle: str, arrays: int) -> None:
    report = compare(CONFIG, GOLDEN / f"golden_{bundle}.npz")
    assert report.failures() == []
    assert report.not_compared == []
    assert report.passed
    assert len(report.comparisons) == len(report.golden) == arrays
    assert report.keys is not None and len(report.keys.matched) == 596


def test_float32_follows_the_release_as_well() -> None:
    report = compare(CONFIG, GOLDEN / "golden_full_A.npz", dtype=torch.float32)
    # Queries may swap ranks where scores are 3e-5 apart; what they detect stays the same.
    assert [line for line in report.failures() if not line.startswith(("topk_idx", "det_"))] == []


@pytest.mark.parametrize(
    ("override", "bundle", "array"),
    [
        ("model.mask_branch.transformer.relu=false", "iat", "nopad_logits"),
        ("model.mask_branch.transformer.position=absolute", "iat", "pad_logits"),
        ("model.tokens.offset=0.0", "maskenc", "sinepos_img1_slice"),
    ],
)
def test_a_changed_model_fails(override: str, bundle: str, array: str) -> None:
    report = compare(CONFIG, GOLDEN / f"golden_{bundle}.npz", [override])
    assert not report.passed
    assert not report.comparisons[array].within
    assert report.comparisons["nopad_ref" if bundle == "iat" else "ref"].within


@pytest.fixture(scope="module")
def filled_model() -> SOIT:
    model = instantiate(load_config(CONFIG).model)
    fill_by_official_names(model, LAYOUTS[0])
    return model


@pytest.mark.slow
def test_gradient_norms_are_compared_by_every_official_parameter(
    filled_model: SOIT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = json.loads((GOLDEN / "manifest_r50.json").read_text())
    TrainingStep(filled_model)
    monkeypatch.setattr("queryseg.projects.soit.parity_training.TrainingStep", lambda _: None)
    norms = _norms_by_official_name(filled_model, list(manifest))
    # 42 parameters of the backbone learn, as in the release; the mask head counts once.
    assert len(norms) == 490 and sum(norm is None for norm in norms.values()) == 117
    path = tmp_path / "golden_loss_gradnorms.json"
    path.write_text(json.dumps(norms))
    report = ParityReport(read_golden(path))
    compare_gradient_norms(filled_model, report)
    assert report.failures() == [] and len(report.comparisons) == 490
    norms["neck.convs.0.gn.bias"] = None
    norms["bbox_head.cls_branches.0.bias"] *= 1.003  # type: ignore[operator]
    path.write_text(json.dumps(norms))
    report = ParityReport(read_golden(path))
    compare_gradient_norms(filled_model, report)
    assert len(report.failures()) == 2


def _norms_by_official_name(model: SOIT, names: list[str]) -> dict[str, float | None]:
    (layout,) = LAYOUTS
    parameters = dict(model.named_parameters())
    norms: dict[str, float | None] = {}
    for name in names:
        if "running_" in name or "num_batches" in name:
            continue
        if "seg_branches" in name and "seg_branches.0." not in name:
            continue
        ours = layout.to_ours(name.replace("seg_branches.0.", "seg_branches.5."))
        parameter = parameters.get(str(ours))
        learns = parameter is not None and parameter.grad is not None
        norms[name] = float(parameter.grad.norm()) if learns else None  # type: ignore[union-attr]
    return norms


def test_json_that_is_no_list_of_numbers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "golden_loss_gradnorms.json"
    path.write_text('{"a": "b"}')
    with pytest.raises(ToolError, match="no JSON object of numbers"):
        read_golden(path)


def test_padding_of_a_batch_is_that_of_the_release(filled_model: SOIT) -> None:
    # The second golden image on the canvas of the first: what the batch of the losses is.
    images = filled_model.preprocess([image.training_input() for image in IMAGES.values()])
    padded = IMAGES["B"].on_canvas(filled_model)
    assert images.image_sizes == [(192, 256), (172, 230)]
    assert torch.equal(images.tensor[1:], padded.tensor)


def test_padded_image_is_detected_on_its_own_part(filled_model: SOIT) -> None:
    image = IMAGES["B"]
    filled_model.eval()
    with torch.no_grad():
        images = image.on_canvas(filled_model)
        prediction = filled_model.predict(images)
        height, width = image.output_size
        (result,) = filled_model.segment(prediction, images, [{"height": height, "width": width}])
    found = result["instances"]
    boxes = found.pred_boxes.tensor
    assert found.pred_masks.shape == (100, 258, 345)
    expected = prediction.decoded.boxes[-1][0, found.query_idx]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((boxes[:, :2] > 0) & (boxes[:, 2:] < torch.tensor([345, 258]))).all(1)
    assert inside.sum() > 20
    assert torch.allclose(
        centres[inside], expected[inside, :2] * torch.tensor([345.0, 258.0]), atol=1e-2
    )
