"""The mapper against naive decoding, moving and cropping of masks, and against Detectron2's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from fvcore.transforms.transform import CropTransform, HFlipTransform, VFlipTransform
from PIL import Image

from queryseg.data.augmentations import RandomRotation90, Rotate90Transform, large_scale_jitter
from queryseg.data.image import BadImageError
from queryseg.data.mapper import InstanceMapper

HEIGHT, WIDTH = 40, 60


@pytest.fixture
def record(tmp_path: Any) -> dict[str, Any]:
    pixels = np.random.RandomState(0).randint(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return {
        "file_name": str(tmp_path / "image.png"),
        "height": HEIGHT,
        "width": WIDTH,
        "image_id": 7,
        "annotations": [],
    }


def annotation(segmentation: Any, category: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "category_id": category,
        "iscrowd": 0,
        "bbox": [1, 1, 3, 3],
        "bbox_mode": BoxMode.XYWH_ABS,
        "segmentation": segmentation,
        **changes,
    }


def rectangle(x0: int, y0: int, x1: int, y1: int) -> list[list[float]]:
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def drawn(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[y0:y1, x0:x1] = 1
    return mask


def uncompressed(mask: np.ndarray) -> dict[str, Any]:
    flat = np.concatenate([[0], mask.T.reshape(-1)])
    changes = np.flatnonzero(np.diff(flat))
    runs = np.diff(np.concatenate([[0], changes, [mask.size]]))
    return {"size": list(mask.shape), "counts": runs.tolist()}


def three_notations(box: tuple[int, int, int, int]) -> list[Any]:
    mask = drawn(*box)
    rle = mask_util.encode(np.asfortranarray(mask))
    text = {"size": rle["size"], "counts": rle["counts"].decode()}
    return [rectangle(*box), text, rle, uncompressed(mask), mask.astype(bool)]


def mapped_masks(record: dict[str, Any], *augmentations: Any, **options: Any) -> np.ndarray:
    mapper = InstanceMapper(is_train=True, augmentations=augmentations, **options)
    return mapper(record)["instances"].gt_masks.tensor.numpy()


NAIVE_MOVES: dict[str, tuple[Any, Callable[[np.ndarray], np.ndarray]]] = {
    "nothing": ([], lambda m: m),
    "horizontal flip": ([HFlipTransform(WIDTH)], lambda m: m[:, ::-1]),
    "vertical flip": ([VFlipTransform(HEIGHT)], lambda m: m[::-1]),
    "double size": ([T.Resize((80, 120))], lambda m: np.kron(m, np.ones((2, 2)))),
    "quarter turn": ([Rotate90Transform(1, HEIGHT, WIDTH)], lambda m: m.T[::-1]),
    "crop": ([CropTransform(15, 12, 30, 20)], lambda m: m[12:32, 15:45]),
    "flip and crop": (
        [HFlipTransform(WIDTH), CropTransform(15, 12, 30, 20)],
        lambda m: m[:, ::-1][12:32, 15:45],
    ),
    "triple size, crop, flip": (
        [T.Resize((120, 180)), CropTransform(50, 40, 70, 60), HFlipTransform(70)],
        lambda m: np.kron(m, np.ones((3, 3)))[40:100, 50:120][:, ::-1],
    ),
}


@pytest.mark.parametrize("name", NAIVE_MOVES)
def test_the_notations_of_rectangles_move_as_their_pixels_do(
    record: dict[str, Any], name: str
) -> None:
    augmentations, move = NAIVE_MOVES[name]
    boxes = [(4, 6, 30, 28), (16, 0, 60, 14), (0, 30, 40, 40), (20, 13, 22, 31)]
    for box in boxes:
        record["annotations"] = [annotation(s) for s in three_notations(box)]
        masks = mapped_masks(record, *augmentations, filter_empty=False)
        expected = move(drawn(*box)).astype(bool)
        for mask in masks:
            np.testing.assert_array_equal(mask, expected)


def nearest_places(old: int, new: int) -> tuple[list[int], np.ndarray]:
    """The old place of every new pixel's centre, and which of them are not ties."""
    centres = [(i + 0.5) * old / new for i in range(new)]
    return [int(c) for c in centres], np.array([abs(c - round(c)) > 1e-9 for c in centres])


@pytest.mark.parametrize("is_train", [True, False])
def test_an_image_of_which_resizing_leaves_nothing_is_named_with_its_size(
    tmp_path: Path, is_train: bool
) -> None:
    file = tmp_path / "line.png"
    Image.new("RGB", (700, 1)).save(file)
    mapper = InstanceMapper(is_train=is_train, augmentations=[T.ResizeShortestEdge(1, 40)])
    record = {"file_name": str(file), "image_id": 7, "height": 1, "width": 700, "annotations": []}
    with pytest.raises(BadImageError, match=r"image 7 \(.*line\.png\): 700 x 1 pixels") as caught:
        mapper(record)
    assert "Crop or pad the image" in str(caught.value)


def random_polygon(rng: np.random.RandomState) -> list[float]:
    angles = np.sort(rng.uniform(0, 2 * np.pi, size=rng.randint(3, 12)))
    radii = rng.uniform(4, 18, size=angles.size)
    centre = rng.uniform([5, 5], [WIDTH - 5, HEIGHT - 5])
    points = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return points.reshape(-1).tolist()


def drawn_by_pycocotools(polygons: list[np.ndarray], height: int, width: int) -> np.ndarray:
    rles = mask_util.frPyObjects([p.reshape(-1).tolist() for p in polygons], height, width)
    return mask_util.decode(mask_util.merge(rles)).astype(bool)


def test_random_masks_under_random_flips_and_resizes_equal_naive_ones(
    record: dict[str, Any],
) -> None:
    rng = np.random.RandomState(3)
    for _ in range(40):
        polygons = [random_polygon(rng) for _ in range(rng.randint(1, 4))]
        points = [np.array(p).reshape(-1, 2) for p in polygons]
        mask = drawn_by_pycocotools(points, HEIGHT, WIDTH)
        rle = uncompressed(mask.astype(np.uint8))
        record["annotations"] = [annotation(polygons), annotation(rle)]
        height, width = (int(v) for v in rng.randint(20, 90, size=2))
        flip = bool(rng.randint(2))
        transforms = [T.Resize((height, width)), *([HFlipTransform(width)] if flip else [])]
        found = mapped_masks(record, *transforms, filter_empty=False)

        scaled = [p * [width / WIDTH, height / HEIGHT] for p in points]
        moved = [[width, 0] + p * [-1, 1] for p in scaled] if flip else scaled
        np.testing.assert_array_equal(found[0], drawn_by_pycocotools(moved, height, width))
        (rows, clear_rows), (cols, clear_cols) = (
            nearest_places(HEIGHT, height),
            nearest_places(WIDTH, width),
        )
        unflipped = found[1][:, ::-1] if flip else found[1]
        clear = np.ix_(clear_rows, clear_cols)
        np.testing.assert_array_equal(unflipped[clear], mask[np.ix_(rows, cols)][clear])
        assert clear_rows.mean() > 0.5


def test_a_polygon_cropped_equals_the_crop_of_the_polygon_drawn_in_full(
    record: dict[str, Any],
) -> None:
    # pycocotools rounds to fifths of a pixel, and towards zero left of and above the frame.
    rng = np.random.RandomState(4)
    differing = 0
    for _ in range(60):
        polygon = random_polygon(rng)
        record["annotations"] = [annotation([polygon])]
        x, y = int(rng.randint(0, 30)), int(rng.randint(0, 20))
        found = mapped_masks(record, CropTransform(x, y, 30, 20), filter_empty=False)[0]
        full = drawn_by_pycocotools([np.array(polygon)], HEIGHT, WIDTH)
        differences = int((found != full[y : y + 20, x : x + 30]).sum())
        assert differences <= 2
        differing += differences
    assert differing < 10  # of 36,000 pixels


def test_everything_but_box_origin_equals_detectron2s_mapper(record: dict[str, Any]) -> None:
    rng = np.random.RandomState(5)
    for index in range(4):
        polygon = np.array(random_polygon(rng)).reshape(-1, 2)
        low = polygon.min(axis=0).clip(0, [WIDTH, HEIGHT])
        high = polygon.max(axis=0).clip(0, [WIDTH, HEIGHT])
        record["annotations"].append(
            annotation(
                [polygon.reshape(-1).tolist()], index, bbox=[*low.tolist(), *(high - low).tolist()]
            )
        )
    augmentations = [
        T.ResizeShortestEdge([30, 50, 70], max_size=90, sample_style="choice"),
        T.RandomFlip(),
    ]
    ours = InstanceMapper(is_train=True, augmentations=augmentations, recompute_boxes=False)
    theirs = DatasetMapper(
        is_train=True,
        augmentations=augmentations,
        image_format="RGB",
        use_instance_mask=True,
        instance_mask_format="bitmask",
    )
    for seed in range(12):
        np.random.seed(seed)
        found = ours(record)
        np.random.seed(seed)
        expected = theirs(record)
        assert torch.equal(found["image"], expected["image"])
        assert found["height"] == expected["height"]
        assert found["width"] == expected["width"]
        for name in ("gt_boxes", "gt_masks"):
            tensors = [getattr(m["instances"], name).tensor for m in (found, expected)]
            assert torch.equal(*tensors)
        assert torch.equal(found["instances"].gt_classes, expected["instances"].gt_classes)


def test_boxes_are_tight_around_the_transformed_masks(record: dict[str, Any]) -> None:
    record["annotations"] = [annotation(s) for s in three_notations((10, 5, 50, 35))]
    mapper = InstanceMapper(is_train=True, augmentations=[CropTransform(15, 12, 30, 20)])
    boxes = mapper(record)["instances"].gt_boxes.tensor
    assert boxes.tolist() == [[0, 0, 30, 20]] * 5


def test_stated_boxes_without_area_are_taken_from_the_mask(record: dict[str, Any]) -> None:
    shape = rectangle(10, 5, 50, 35)
    record["annotations"] = [
        annotation(shape, bbox=[9, 4, 42, 32]),
        annotation(shape, bbox=[12, 7, 0, 4]),
        annotation(shape, bbox=[200, 7, 5, 4]),
    ]
    mapper = InstanceMapper(is_train=True, augmentations=[], recompute_boxes=False)
    boxes = mapper(record)["instances"].gt_boxes.tensor
    assert boxes.tolist() == [[9, 4, 51, 36], [10, 5, 50, 35], [10, 5, 50, 35]]


def test_crowds_are_left_out(record: dict[str, Any]) -> None:
    record["annotations"] = [
        annotation(rectangle(1, 1, 9, 9), 3, iscrowd=1),
        annotation(rectangle(2, 2, 9, 9), 4),
    ]
    assert InstanceMapper(is_train=True, augmentations=[])(record)[
        "instances"
    ].gt_classes.tolist() == [4]


@pytest.mark.parametrize("crowd_only", [False, True])
def test_an_image_without_objects_has_all_fields_with_no_rows(
    record: dict[str, Any], crowd_only: bool
) -> None:
    if crowd_only:
        record["annotations"] = [annotation(rectangle(1, 1, 9, 9), iscrowd=1)]
    mapper = InstanceMapper(is_train=True, augmentations=[T.Resize((30, 20))])
    instances = mapper(record)["instances"]
    assert instances.image_size == (30, 20)
    assert instances.gt_boxes.tensor.shape == (0, 4)
    assert instances.gt_masks.tensor.shape == (0, 30, 20)
    assert instances.gt_masks.tensor.dtype == torch.bool
    assert instances.gt_classes.shape == (0,)
    assert instances.gt_classes.dtype == torch.int64


def test_an_object_cropped_away_is_dropped_with_its_label_or_kept_empty(
    record: dict[str, Any],
) -> None:
    record["annotations"] = [
        *[annotation(s, 1) for s in three_notations((50, 30, 60, 40))],
        annotation(rectangle(0, 0, 20, 20), 2),
    ]
    crop = [CropTransform(0, 0, 30, 20)]
    kept = InstanceMapper(is_train=True, augmentations=crop)(record)["instances"]
    assert kept.gt_classes.tolist() == [2]
    whole = InstanceMapper(is_train=True, augmentations=crop, filter_empty=False)(record)
    instances = whole["instances"]
    assert instances.gt_classes.tolist() == [1, 1, 1, 1, 1, 2]
    assert instances.gt_masks.tensor.sum(dim=(1, 2)).tolist() == [0, 0, 0, 0, 0, 400]
    assert instances.gt_boxes.tensor[:5].abs().sum() == 0


def test_an_object_whose_box_alone_reaches_into_the_crop_is_dropped(record: dict[str, Any]) -> None:
    corner = [[0, 0, 20, 0, 20, 2, 2, 2, 2, 20, 0, 20]]
    record["annotations"] = [annotation(corner, bbox=[0, 0, 20, 20])]
    mapper = InstanceMapper(
        is_train=True, augmentations=[CropTransform(5, 5, 30, 20)], recompute_boxes=False
    )
    assert len(mapper(record)["instances"]) == 0
    mapper.filter_empty = False
    assert mapper(record)["instances"].gt_boxes.tensor.tolist() == [[0, 0, 15, 15]]


def test_padding_is_not_object_in_any_notation(record: dict[str, Any]) -> None:
    record["annotations"] = [annotation(s) for s in three_notations((0, 0, 60, 40))]
    masks = mapped_masks(record, large_scale_jitter(90, min_scale=1.0, max_scale=1.0))
    assert masks.shape == (5, 90, 90)
    assert (masks.sum(axis=(1, 2)) == 90 * 60).all()


def test_the_output_has_the_promised_types_and_leaves_the_input_alone(
    record: dict[str, Any],
) -> None:
    record["annotations"] = [annotation(rectangle(4, 4, 30, 30))]
    before = repr(record)
    mapper = InstanceMapper(
        is_train=True, augmentations=[T.Resize((20, 30)), T.RandomFlip(prob=1.0)]
    )
    mapped = mapper(record)
    assert repr(record) == before
    assert set(mapped) == {"image", "height", "width", "file_name", "image_id", "instances"}
    assert mapped["image"].dtype == torch.uint8
    assert mapped["image"].shape == (3, 20, 30)
    assert mapped["image"].is_contiguous()
    assert (mapped["height"], mapped["width"], mapped["image_id"]) == (HEIGHT, WIDTH, 7)
    assert mapped["instances"].gt_boxes.tensor.dtype == torch.float32


def test_for_testing_annotations_are_not_even_looked_at(record: dict[str, Any]) -> None:
    record["annotations"] = [annotation("nonsense")]
    mapped = InstanceMapper(is_train=False, augmentations=[T.Resize((20, 30))])(record)
    assert set(mapped) == {"image", "height", "width", "file_name", "image_id"}


def test_channel_order_follows_the_format(record: dict[str, Any]) -> None:
    rgb, bgr = (
        InstanceMapper(is_train=False, augmentations=[], image_format=f)(record)["image"]
        for f in ("RGB", "BGR")
    )
    assert torch.equal(rgb.flip(0), bgr)
    with pytest.raises(ValueError, match="image_format"):
        InstanceMapper(is_train=False, augmentations=[], image_format="GRAY")


def test_an_unusable_mask_is_named_with_file_and_ids(record: dict[str, Any]) -> None:
    mapper = InstanceMapper(is_train=True, augmentations=[])
    wrong_size = uncompressed(np.ones((5, 5), dtype=np.uint8))
    for segmentation in (wrong_size, "mask.png", {"size": [HEIGHT, WIDTH], "counts": [-3, 5]}):
        record["annotations"] = [annotation(segmentation, id=31)]
        with pytest.raises(ValueError, match=r"annotation 31 of image 7 \(.*image\.png\)"):
            mapper(record)


def test_a_stated_size_that_is_wrong_is_named(record: dict[str, Any]) -> None:
    record["height"] = HEIGHT + 1
    with pytest.raises(BadImageError, match=r"image 7 \(.*image\.png\).*60 x 40"):
        InstanceMapper(is_train=True, augmentations=[])(record)


def test_random_recipes_keep_image_masks_and_boxes_consistent(record: dict[str, Any]) -> None:
    rng = np.random.RandomState(6)
    np.random.seed(0)
    recipe = [
        RandomRotation90(),
        T.RandomFlip(),
        T.ResizeShortestEdge([24, 64], sample_style="range"),
        T.RandomCrop("absolute_range", (16, 48)),
    ]
    mapper = InstanceMapper(is_train=True, augmentations=recipe)
    for _ in range(60):
        boxes = [rng.randint([0, 0, 21, 21], [20, 20, WIDTH, HEIGHT]) for _ in range(3)]
        notations = [three_notations(tuple(b.tolist()))[rng.randint(5)] for b in boxes]
        record["annotations"] = [annotation(s, i) for i, s in enumerate(notations)]
        mapped = mapper(record)
        instances = mapped["instances"]
        assert mapped["image"].shape[1:] == instances.gt_masks.tensor.shape[1:]
        assert instances.gt_masks.tensor.flatten(1).any(dim=1).all()
        for mask, box in zip(instances.gt_masks.tensor, instances.gt_boxes.tensor.tolist()):
            ys, xs = torch.nonzero(mask, as_tuple=True)
            tight = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            assert box == [float(v) for v in tight]
