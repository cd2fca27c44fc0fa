"""Videos frame by frame: records of single frames, pairs to learn tracking from, and loaders."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetFromList
from detectron2.data import transforms as T
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from queryseg.data.augmentations import augment
from queryseg.data.loader import MappedDataset, Mapper, Sample, SeededDataset, TrainLoader
from queryseg.data.mapper import InstanceMapper
from queryseg.data.sampler import aspect_ratio_groups


def frame_record(video: dict[str, Any], frame: int) -> dict[str, Any]:
    """One frame of a video as a standard dataset dict of an image.

    Args:
        video: as of `queryseg.data.video_json.load_video_json`.
        frame: its number, from 0.

    Returns:
        `file_name`, `image_id` ("<video>/<frame>"), `height`, `width`, `annotations`, and
        `video_id`, `frame` and `length` of the video.
    """
    return {
        "file_name": video["file_names"][frame],
        "image_id": f"{video['video_id']}/{frame}",
        "height": video["height"],
        "width": video["width"],
        "annotations": video["annotations"][frame],
        "video_id": video["video_id"],
        "frame": frame,
        "length": video["length"],
    }


def has_object(annotations: Sequence[dict[str, Any]]) -> bool:
    """Whether anything but crowds is visible in a frame."""
    return any(not annotation.get("iscrowd", 0) for annotation in annotations)


class KeyFrames(Dataset[dict[str, Any]]):
    """Every frame with an object, as the key of a pair: a video's dict with `key_frame`.

    Args:
        videos: as of `queryseg.data.video_json.load_video_json`.

    Raises:
        ValueError: no frame has an object.
    """

    def __init__(self, videos: Sequence[dict[str, Any]]) -> None:
        self.videos = DatasetFromList(list(videos), copy=False)
        places = [
            (index, frame)
            for index, video in enumerate(videos)
            for frame, annotations in enumerate(video["annotations"])
            if has_object(annotations)
        ]
        if not places:
            raise ValueError(f"none of the {len(videos)} videos has a frame with an object")
        self.places = np.array(places)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        video, frame = self.places[index].tolist()
        return {**self.videos[video], "key_frame": frame}

    def aspect_ratio_groups(self) -> list[int]:
        """1 for key frames wider than high, 0 for the others."""
        groups = np.array(aspect_ratio_groups(self.videos))
        return groups[self.places[:, 0]].tolist()


class FramePairMapper(InstanceMapper):
    """Reads a key frame and another one of its video, and augments both in the same way.

    The reference is drawn uniformly from the other frames with an object (MaskTrack R-CNN); a
    video with one such frame is its own reference. Arguments are those of `InstanceMapper`.

    Args:
        max_distance: frames between the two at most; None takes the whole video.
    """

    def __init__(self, *, max_distance: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.max_distance = max_distance

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Map one pair.

        Args:
            dataset_dict: an item of `KeyFrames`.

        Returns:
            The mapped key frame, as `InstanceMapper` gives it, with the other one under
            `reference`.
        """
        key_frame = dataset_dict["key_frame"]
        key = frame_record(dataset_dict, key_frame)
        pixels = self.read(key)
        aug_input = T.AugInput(pixels)
        transforms = augment(self.augmentations, aug_input, key["file_name"])
        mapped = self.assemble(key, pixels.shape[:2], aug_input.image, transforms)
        other = frame_record(dataset_dict, self._draw_reference(dataset_dict, key_frame))
        pixels = self.read(other)
        image = transforms.apply_image(pixels)
        mapped["reference"] = self.assemble(other, pixels.shape[:2], image, transforms)
        return mapped

    def _draw_reference(self, video: dict[str, Any], key_frame: int) -> int:
        reach = video["length"] if self.max_distance is None else self.max_distance
        others = [
            frame
            for frame, annotations in enumerate(video["annotations"])
            if frame != key_frame and abs(frame - key_frame) <= reach and has_object(annotations)
        ]
        return int(np.random.choice(others)) if others else key_frame


def build_pair_loader(
    dataset: Sequence[dict[str, Any]],
    *,
    mapper: Mapper,
    total_batch_size: int,
    num_workers: int = 4,
    seed: int = 0,
    aspect_ratio_grouping: bool = True,
    start_method: str | None = None,
) -> TrainLoader:
    """The endless loader of pairs of frames; an epoch has every frame with an object once.

    Args:
        dataset: videos, as of `queryseg.data.registration.get_dataset_dicts`.
        mapper: a `FramePairMapper`.
        total_batch_size: pairs of one step over all processes.
        num_workers: worker processes; 0 maps in this process.
        seed: seed of the order and, with each sample's place in it, of the augmentations.
        aspect_ratio_grouping: put only wide, or only high videos into one batch.
        start_method: how workers are started; None takes Python's default.
    """
    key_frames = KeyFrames(dataset)
    return TrainLoader(
        SeededDataset(key_frames, mapper, seed),
        groups=key_frames.aspect_ratio_groups() if aspect_ratio_grouping else None,
        total_batch_size=total_batch_size,
        num_workers=num_workers,
        start_method=start_method,
    )


class AllFrames(Dataset[dict[str, Any]]):
    """All frames of all videos, video after video, each in the order of time."""

    def __init__(self, videos: Sequence[dict[str, Any]]) -> None:
        self.videos = DatasetFromList(list(videos), copy=False)
        self.places = [(i, t) for i, v in enumerate(videos) for t in range(v["length"])]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        video, frame = self.places[index]
        return frame_record(self.videos[video], frame)


class WholeVideoSampler(Sampler[int]):
    """Frames in their order; each process gets whole videos, about as many frames as the others.

    Args:
        lengths: frames of each video.
        rank: number of this process.
        world_size: number of processes.
    """

    def __init__(self, lengths: Sequence[int], rank: int = 0, world_size: int = 1) -> None:
        ends = np.cumsum(lengths)
        # A video belongs to the process in whose share of all frames its middle lies.
        middles = ends - np.asarray(lengths) / 2
        owner = np.minimum(middles * world_size / max(int(ends[-1]), 1), world_size - 1).astype(int)
        starts = ends - np.asarray(lengths)
        self._frames = [
            frame
            for start, end, own in zip(starts.tolist(), ends.tolist(), owner.tolist())
            if own == rank
            for frame in range(start, end)
        ]

    def __iter__(self) -> Any:
        return iter(self._frames)

    def __len__(self) -> int:
        return len(self._frames)


def build_video_test_loader(
    dataset: Sequence[dict[str, Any]],
    *,
    mapper: Mapper,
    num_workers: int = 4,
    start_method: str | None = None,
) -> DataLoader[Sample]:
    """A loader that gives every frame once, in order, one at a time, as an online tracker needs.

    Args:
        dataset: videos, as of `queryseg.data.registration.get_dataset_dicts`.
        mapper: an `InstanceMapper`.
        num_workers: worker processes; 0 maps in this process.
        start_method: how workers are started; None takes Python's default.
    """
    lengths = [video["length"] for video in dataset]
    return DataLoader(
        MappedDataset(AllFrames(dataset), mapper),
        batch_size=1,
        sampler=WholeVideoSampler(lengths, comm.get_rank(), comm.get_world_size()),
        num_workers=num_workers,
        collate_fn=list,
        multiprocessing_context=start_method if num_workers else None,
        generator=torch.Generator(),
    )
