"""The whole way from an entry of a data set to the input of a model."""

import copy
import random
from pathlib import Path

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, BoxMode, PolygonMasks
from PIL import Image

HEIGHT, WIDTH = 40, 56
CHAINS = {
    "standard": [T.ResizeShortestEdge((24, 48), 64), T.RandomFlip()],
    "jitter": [
        T.ResizeScale(0.4, 1.8, 36, 36),
        T.FixedSizeCrop((36, 36)),
        T.RandomFlip(),
    ],
    "colour": [
        T.RandomCrop("relative_range", (0.5, 0.5)),
        T.RandomApply(T.RandomBrightness(0.5, 1.5), 0.6),
        T.RandomContrast(0.5, 1.5),
        T.RandomSaturation(0.5, 1.5),
        T.RandomFlip(horizontal=False, vertical=True),
    ],
    "extent": [
        T.RandomExtent((0.7, 1.3), (0.2, 0.2)),
        T.RandomFlip(horizontal=False, vertical=True),
    ],
}


@pytest.fixture
def entry(tmp_path: Path) -> dict:
    generator = np.random.RandomState(3)
    small = generator.randint(0, 256, (4, 5, 3), dtype=np.uint8)
    path = tmp_path / "image.png"
    Image.fromarray(small).resize((WIDTH, HEIGHT), Image.BICUBIC).save(path)
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8, order="F")
    mask[12:30, 8:33] = 1
    mask[18:22, 14:20] = 0
    polygons = [[30.5, 4.2, 50.1, 9.9, 44.4, 31.7, 33.0, 25.0], [5.0, 30.0, 12.0, 28.0, 11.0, 38.0]]
    shapes = [
        {"segmentation": coco_mask.encode(mask), "bbox": [8.0, 12.0, 25.0, 18.0]},
        {"segmentation": polygons, "bbox": [5.0, 4.2, 45.1, 33.8]},
        {"segmentation": [polygons[1]], "bbox": [5.0, 28.0, 7.0, 10.0]},
        {"segmentation": [[0, 0, 9, 0, 9, 9]], "bbox": [0, 0, 9, 9], "iscrowd": 1},
    ]
    annotations = [
        {"category_id": index, "bbox_mode": BoxMode.XYWH_ABS, "iscrowd": 0} | shape
        for index, shape in enumerate(shapes)
    ]
    ids = {"file_name": str(path), "image_id": 5, "height": HEIGHT, "width": WIDTH}
    return ids | {"annotations": annotations}


def only_polygons(entry: dict) -> dict:
    return entry | {"annotations": entry["annotations"][1:]}


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_samples_equal_those_of_the_real_detectron2(
    stored, entry: dict, chain: str, mask_format: str
) -> None:
    mapper = DatasetMapper(
        True,
        augmentations=CHAINS[chain],
        image_format="BGR",
        use_instance_mask=True,
        instance_mask_format=mask_format,
        recompute_boxes=chain in ("jitter", "extent"),
    )
    ours: dict[str, object] = {}
    for seed in range(3):
        np.random.seed(seed)
        sample = mapper(only_polygons(entry) if mask_format == "polygon" else entry)
        instances = sample["instances"]
        masks = instances.gt_masks
        if mask_format == "polygon":
            assert isinstance(masks, PolygonMasks)
            ours[f"{seed}/areas"] = masks.area().numpy()
            ours[f"{seed}/bounds"] = masks.get_bounding_boxes().tensor.numpy()
            if chain in ("standard", "extent"):  # where shapely cuts, it also chooses the order
                ours[f"{seed}/masks"] = np.concatenate([p for parts in masks for p in parts])
        else:
            assert isinstance(masks, BitMasks) and masks.image_size == instances.image_size
            ours[f"{seed}/masks"] = np.packbits(masks.tensor.numpy())
        ours[f"{seed}/size"] = instances.image_size
        ours[f"{seed}/image"] = sample["image"][:, ::4, ::4].numpy()
        ours[f"{seed}/boxes"] = instances.gt_boxes.tensor.numpy()
        ours[f"{seed}/classes"] = instances.gt_classes.numpy()
        ours[f"{seed}/numpy_afterwards"] = np.random.randint(2**31)
    for name, answer in stored(f"mapper_{chain}_{mask_format}", ours).items():
        exact = np.asarray(ours[name]).dtype.kind in "biu"
        np.testing.assert_allclose(
            ours[name], answer, rtol=0 if exact else 1e-6, atol=0 if exact else 1e-5, err_msg=name
        )


def test_a_sample_describes_the_original_image_and_leaves_the_entry_alone(entry: dict) -> None:
    before = copy.deepcopy(entry)
    mapper = DatasetMapper(
        True,
        augmentations=[T.Resize((20, 28))],
        image_format="RGB",
        use_instance_mask=True,
        instance_mask_format="bitmask",
    )
    sample = mapper(entry)
    assert entry == before
    assert sample["image"].shape == (3, 20, 28) and sample["image"].dtype == torch.uint8
    assert (sample["height"], sample["width"], sample["image_id"]) == (HEIGHT, WIDTH, 5)
    assert sample["instances"].image_size == (20, 28) and "annotations" not in sample
    assert sample["instances"].gt_classes.tolist() == [0, 1, 2]  # the crowd is left out
    np.testing.assert_allclose(sample["instances"].gt_boxes.tensor[0], [4, 6, 16.5, 15])


def test_tests_see_no_annotations(entry: dict) -> None:
    sample = DatasetMapper(False, augmentations=[], image_format="BGR")(entry)
    expected = np.asarray(Image.open(entry["file_name"]))[:, :, ::-1].transpose(2, 0, 1)
    np.testing.assert_array_equal(sample["image"], expected)
    assert sample.keys() == {"image", "file_name", "image_id", "height", "width"}


def test_masks_are_made_only_if_asked_for(entry: dict) -> None:
    sample = DatasetMapper(True, augmentations=[], image_format="BGR")(entry)
    assert [*sample["instances"].get_fields()] == ["gt_boxes", "gt_classes"]
    with pytest.raises(AssertionError):
        DatasetMapper(True, augmentations=[], image_format="BGR", recompute_boxes=True)


def test_labels_of_pixels_follow_the_image(entry: dict, tmp_path: Path) -> None:
    labels = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    path = tmp_path / "labels.png"
    Image.fromarray(labels).save(path)
    augmentations = [T.CropTransform(3, 2, 10, 8), T.HFlipTransform(10)]
    mapper = DatasetMapper(True, augmentations=augmentations, image_format="RGB")
    sample = mapper(only_polygons(entry) | {"sem_seg_file_name": str(path)})
    assert sample["sem_seg"].dtype == torch.int64
    np.testing.assert_array_equal(sample["sem_seg"], labels[2:10, 3:13][:, ::-1])


def test_the_mapper_draws_from_numpy_alone(entry: dict) -> None:
    mapper = DatasetMapper(True, augmentations=CHAINS["colour"], image_format="RGB")
    states = random.getstate(), torch.random.get_rng_state()
    mapper(entry)
    assert random.getstate() == states[0]
    assert torch.equal(torch.random.get_rng_state(), states[1])
