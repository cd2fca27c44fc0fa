"""Refinement on a device that computes nothing: what the host would wait for."""

import torch
from detectron2.config import instantiate
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from queryseg.engine import load_config
from queryseg.mask_refinement.rois import RoIs
from queryseg.ops.quadtree import QuadtreeNodes

GRIDS = (7, 14, 28, 56)
READS = ("aten._local_scalar_dense", "aten.nonzero", "aten.item", "aten.equal")


class Waits(TorchDispatchMode):
    """Remembers operations after which the host waits for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.copies = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = str(func)
        on_host = [one.device.type == "cpu" for one in args if isinstance(one, Tensor)]
        if name.startswith(READS) and not all(on_host):
            self.found.append(name)
        goes_to = kwargs.get("device")
        if name.startswith("aten._to_copy") and goes_to is not None and on_host == [True]:
            self.copies += 1
            if not kwargs.get("non_blocking"):
                self.found.append(f"{name} to {goes_to}")
        return func(*args, **kwargs)


def test_nothing_waits_between_the_choice_of_the_nodes_and_the_masks() -> None:
    cfg = load_config("mask_transfiner/mask_transfiner_tiny.py").model.roi_heads.mask_head
    cfg.coarse_head.num_classes = 6
    cfg.propagation.blur = True
    with FakeTensorMode(), torch.no_grad():
        with torch.device("cuda"):
            head = instantiate(cfg).eval()
            maps = [torch.empty(2, 64, 96 >> k, 128 >> k) for k in range(3)]
            rois = RoIs(torch.empty(5, 4), torch.empty(5, dtype=torch.long))
            each = [GRIDS[0] ** 2, 10, 10, 10]
            total = 5 * sum(each)
            index, level = (torch.empty(n, dtype=torch.long) for n in ((total, 3), (total,)))
            nodes = QuadtreeNodes(index, level, torch.empty(5, 4, dtype=torch.long), GRIDS)
            probs = [torch.empty(5, 1, size, size) for size in GRIDS]
            labels = torch.empty(total)
        # The sequences are cut by numbers that the host has: only what follows is of interest.
        with Waits() as waits:
            tokens, position = head.refiner.node_encoder(maps, maps, rois, nodes, probs)
            encoded = head.refiner.sequence_encoder(tokens[None], position[None], None, each[0])
            logits = head.refiner._decode(encoded)
            masks = head.propagation(probs[1], nodes, labels, [5 * n for n in each])
        assert logits.shape == (1, total - each[0]) and masks.shape == (5, 1, 56, 56)
        assert masks.device.type == "cuda"
    assert waits.copies > 0, "nothing was seen"
    assert not waits.found
