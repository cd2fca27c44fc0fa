"""Files of detectors, for the detectors themselves and for the one inside Mask Frozen-DETR."""

from queryseg.detectors.convert import DETECTOR_LAYOUTS, inside

LAYOUTS = (
    *DETECTOR_LAYOUTS,
    *(inside(layout, "detector.") for layout in DETECTOR_LAYOUTS),
)

_HDETR = "https://github.com/HDETR/H-Deformable-DETR/releases/download/v0.1/"
_TRICKS = "dp0_mqs_lft_deformable_detr_plus_iterative_bbox_refinement_plus_plus_two_stage_36eps.pth"
_HYBRID = "hybrid_branch_lambda1_group6_t1500_"

# Detectors to start from, asked for as `zoo://<name>`.
RELEASES = {
    "hdetr_r50": f"{_HDETR}r50_{_HYBRID}{_TRICKS}",
    "hdetr_swin_t": f"{_HDETR}swin_tiny_{_HYBRID}{_TRICKS}",
    "hdetr_swin_l_n900": (f"{_HDETR}decay0.05_drop_path0.5_swin_large_{_HYBRID}n900_{_TRICKS}"),
    "dino_focalnet_l": (
        "https://huggingface.co/microsoft/focalnet-large-fl4-dino-o365-cocoft/resolve/main/"
        "focalnet_large_fl4_o365_finetuned_on_coco.pth"
    ),
}
