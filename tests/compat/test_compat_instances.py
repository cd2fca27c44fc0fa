"""Fields of objects, and images in one padded batch."""

import copy
import pickle

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, ImageList, Instances, PolygonMasks


def some_instances(count: int = 3) -> Instances:
    instances = Instances((30, 40))
    instances.gt_boxes = Boxes(torch.arange(count * 4.0).reshape(count, 4))
    instances.gt_classes = torch.arange(count)
    instances.names = [f"object {index}" for index in range(count)]
    return instances


def test_fields_are_attributes() -> None:
    instances = some_instances()
    assert len(instances) == 3 and instances.image_size == (30, 40)
    assert instances.has("gt_classes") and not instances.has("scores")
    assert instances.get("names") is instances.names
    instances.remove("names")
    assert [*instances.get_fields()] == ["gt_boxes", "gt_classes"]
    with pytest.raises(AttributeError):
        _ = instances.names
    assert not hasattr(instances, "names")
    assert Instances((3, 4), scores=torch.zeros(2)).scores.tolist() == [0, 0]


def test_a_field_of_another_length_is_refused() -> None:
    instances = some_instances()
    with pytest.raises(AssertionError):
        instances.scores = torch.zeros(2)
    assert not instances.has("scores")


def test_indexing_selects_in_every_field() -> None:
    instances = some_instances()
    last = instances[-1]
    assert last.names == ["object 2"] and last.gt_boxes.tensor.shape == (1, 4)
    assert instances[1:].gt_classes.tolist() == [1, 2]
    instances.remove("names")  # a list has no masks
    assert instances[instances.gt_classes != 1].gt_classes.tolist() == [0, 2]
    assert instances[torch.tensor([2, 2])].gt_boxes.tensor[:, 0].tolist() == [8, 8]
    for index in (3, -4):
        with pytest.raises(IndexError):
            _ = instances[index]


def test_what_has_no_length_or_order_raises() -> None:
    with pytest.raises(NotImplementedError):
        len(Instances((3, 4)))
    with pytest.raises(NotImplementedError):
        iter(some_instances())


def test_joining_keeps_the_fields_of_the_first() -> None:
    first, second = some_instances(2), some_instances(1)
    first.masks = PolygonMasks([[np.arange(6.0)], [np.arange(8.0)]])
    second.masks = PolygonMasks([[np.arange(10.0)]])
    second.scores = torch.zeros(1)
    joined = Instances.cat([first, second])
    assert joined.gt_classes.tolist() == [0, 1, 0]
    assert joined.names == ["object 0", "object 1", "object 0"]
    assert [len(parts[0]) for parts in joined.masks] == [6, 8, 10]
    assert len(joined.gt_boxes) == 3 and not joined.has("scores")
    assert Instances.cat([first]) is first
    with pytest.raises(AssertionError):
        Instances.cat([first, Instances((30, 41))])
    with pytest.raises(ValueError):
        Instances.cat([Instances((1, 1), field=(1,)), Instances((1, 1), field=(2,))])


def test_moving_and_copying() -> None:
    instances = some_instances()
    moved = instances.to("cpu")
    assert moved is not instances and moved.names is instances.names
    for twin in (pickle.loads(pickle.dumps(instances)), copy.deepcopy(instances)):
        assert torch.equal(twin.gt_boxes.tensor, instances.gt_boxes.tensor)
        assert twin.image_size == (30, 40) and twin.names == instances.names
    assert "num_instances=3" in str(instances) and "gt_classes" in repr(instances)


@pytest.mark.parametrize(
    ("arguments", "height", "width"),
    [
        ({}, 5, 9),
        ({"size_divisibility": 4}, 8, 12),
        ({"size_divisibility": 1}, 5, 9),
        ({"padding_constraints": {"size_divisibility": 6}, "size_divisibility": 4}, 6, 12),
        ({"padding_constraints": {"square_size": 16}}, 16, 16),
        ({"padding_constraints": {"square_size": 10, "size_divisibility": 8}}, 16, 16),
    ],
)
def test_images_are_padded_right_and_below(arguments: dict, height: int, width: int) -> None:
    images = [torch.rand(3, 5, 4), torch.rand(3, 2, 9)]
    batch = ImageList.from_tensors(images, pad_value=7.0, **arguments)
    assert batch.tensor.shape == (2, 3, height, width)
    assert batch.image_sizes == [(5, 4), (2, 9)] and len(batch) == 2
    for index, image in enumerate(images):
        assert torch.equal(batch[index], image)
        padding = torch.ones(height, width, dtype=torch.bool)
        padding[: image.shape[1], : image.shape[2]] = False
        assert (batch.tensor[index][:, padding] == 7).all()


def test_a_batch_of_one_and_of_masks() -> None:
    image = torch.rand(3, 5, 4)
    alone = ImageList.from_tensors([image], size_divisibility=8)
    assert alone.tensor.shape == (1, 3, 8, 8) and alone.tensor.is_contiguous()
    assert torch.equal(alone[0], image) and alone.tensor[0, :, 5:].eq(0).all()
    masks = ImageList.from_tensors([torch.ones(2, 3, dtype=torch.uint8)] * 2, size_divisibility=4)
    assert masks.tensor.shape == (2, 4, 4) and masks.tensor.dtype == torch.uint8
    assert masks.to(torch.float64).tensor.dtype == torch.float64
    with pytest.raises(AssertionError):
        ImageList.from_tensors([image, image[:2]])
    with pytest.raises(AssertionError):
        ImageList.from_tensors([])


def test_gradients_reach_the_images() -> None:
    images = [torch.rand(1, 2, 3, requires_grad=True), torch.rand(1, 4, 2, requires_grad=True)]
    ImageList.from_tensors(images).tensor.square().sum().backward()
    for image in images:
        assert torch.equal(image.grad, 2 * image.detach())
