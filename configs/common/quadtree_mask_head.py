"""The mask head of the release."""

from detectron2.config import LazyCall as L

from queryseg.mask_refinement.build import (
    build_incoherence_targets,
    build_region,
    build_sampler,
    build_sequence_encoder,
)
from queryseg.mask_refinement.coarse_mask_head import CoarseMaskHead
from queryseg.mask_refinement.criterion import RefinementCriterion
from queryseg.mask_refinement.incoherence_detector import SharedIncoherenceDetector
from queryseg.mask_refinement.mask_head import QuadtreeMaskHead
from queryseg.mask_refinement.node_encoder import NodeEncoder
from queryseg.mask_refinement.propagation import Propagation
from queryseg.mask_refinement.refiner import QuadtreeRefiner
from queryseg.mask_refinement.roi_pyramid import RoIPyramid
from queryseg.mask_refinement.semantic_branch import SemanticBranch

mask_head = L(QuadtreeMaskHead)(
    in_features=["p2", "p3", "p4", "p5"],
    pyramid=L(RoIPyramid)(
        strides=[4, 8, 16, 32],
        grid_sizes=[28, 56, 112],
        level_offsets=[1, 2, 3],
        reference_size=14,
    ),
    semantic=L(SemanticBranch)(channels=256, num_convs=4),
    coarse_head=L(CoarseMaskHead)(
        in_channels=256, num_classes=80, conv_dim=256, num_convs=4, pooled_size=14
    ),
    detector=L(SharedIncoherenceDetector)(channels=256, hidden_dim=128),
    region=L(build_region)(
        kind="detected",
        thresholds=[1e-6, 0.125, 0.8],
        train_thresholds=[0.125, 0.5, 0.5],
        radius=0.0,
        dilate_finest=False,
    ),
    refiner=L(QuadtreeRefiner)(
        node_encoder=L(NodeEncoder)(
            pyramid="${...pyramid}",
            in_channels=256,
            embed_dim="${..embed_dim}",
            coarse=True,
            position="attention",
            context_dim=0,
        ),
        sequence_encoder=L(build_sequence_encoder)(
            kind="transformer",
            embed_dim="${..embed_dim}",
            num_heads=4,
            num_layers=3,
            ffn_dim=2048,
            dropout=0.1,
        ),
        embed_dim=256,
        joint=True,
    ),
    propagation=L(Propagation)(
        mode="bilinear", leaves_only=False, skip_empty_levels=True, blur=False
    ),
    sampler=L(build_sampler)(kind="random", nodes_per_level=150, min_nodes=10),
    criterion=L(RefinementCriterion)(
        weights={"mask": 1.0, "uncertain": 0.5, "refine": 1.0, "semantic": 0.25, "bound": 0.5},
        incoherence=L(build_incoherence_targets)(kind="lossy", threshold=0.05, signed=False),
        dice=True,
        probability_form=True,
        reference_labels=True,
    ),
    max_boxes_train=30,
    max_boxes_test=10,
    nodes_of_truth=False,
    align_foreground=False,
    skipped_levels=[],
)
