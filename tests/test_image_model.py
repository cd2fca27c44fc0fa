"""What all models do with a batch of images."""

import torch
from detectron2.structures import ImageList

from queryseg.image_model import ImageModel, output_size, run_in_groups

MEAN, STD = (10.0, 20.0, 30.0), (1.0, 2.0, 4.0)


def test_pixels_are_normalised_before_they_are_padded_with_zeros() -> None:
    model = ImageModel(pixel_mean=MEAN, pixel_std=STD, size_divisibility=4)
    small = torch.full((3, 3, 6), 50, dtype=torch.uint8)
    large = torch.full((3, 5, 2), 10, dtype=torch.uint8)
    images = model.preprocess([{"image": small}, {"image": large}])
    assert isinstance(images, ImageList)
    assert images.tensor.shape == (2, 3, 8, 8)
    assert [tuple(size) for size in images.image_sizes] == [(3, 6), (5, 2)]
    expected = torch.zeros(2, 3, 8, 8)
    for channel, (first, second) in enumerate(((40.0, 0.0), (15.0, -5.0), (5.0, -5.0))):
        expected[0, channel, :3, :6] = first
        expected[1, channel, :5, :2] = second
    assert torch.equal(images.tensor, expected)


def test_without_a_multiple_the_largest_image_gives_the_size() -> None:
    model = ImageModel(pixel_mean=MEAN, pixel_std=STD)
    sizes = ((3, 6), (5, 2))
    batch = [{"image": torch.zeros(3, *size, dtype=torch.uint8)} for size in sizes]
    assert model.preprocess(batch).tensor.shape == (2, 3, 5, 6)
    assert [model.padded_size(inputs) for inputs in batch] == [(3, 6), (5, 2)]


def test_channels_may_lie_last_in_memory() -> None:
    model = ImageModel(pixel_mean=MEAN, pixel_std=STD, channels_last=True)
    tensor = model.preprocess([{"image": torch.zeros(3, 4, 6, dtype=torch.uint8)}]).tensor
    assert tensor.is_contiguous(memory_format=torch.channels_last)


def test_a_padded_size_is_a_multiple_that_the_image_fits_in() -> None:
    model = ImageModel(pixel_mean=MEAN, pixel_std=STD, size_divisibility=32)
    assert model.padded_size({"image": torch.zeros(3, 33, 64)}) == (64, 64)


def test_the_statistics_move_with_the_model_and_stay_out_of_its_checkpoint() -> None:
    model = ImageModel(pixel_mean=MEAN, pixel_std=STD)
    assert model.state_dict() == {}
    assert model.to("meta").device.type == "meta"


def test_results_are_as_large_as_asked_and_else_as_the_image() -> None:
    assert output_size({"height": 7, "width": 9}, (3, 4)) == (7, 9)
    assert output_size({}, (3, 4)) == (3, 4)


def test_groups_run_once_each_and_results_keep_the_order() -> None:
    calls = []

    def run(inputs: list[dict]) -> list[dict]:
        calls.append([x["n"] for x in inputs])
        return [{"double": 2 * x["n"]} for x in inputs]

    batch = [{"n": n} for n in (1, 2, 3, 5, 4)]
    results = run_in_groups(batch, lambda x: x["n"] % 2, run)
    assert calls == [[1, 3, 5], [2, 4]]
    assert results == [{"double": 2 * x["n"]} for x in batch]
    assert run_in_groups([], lambda x: 0, run) == []
