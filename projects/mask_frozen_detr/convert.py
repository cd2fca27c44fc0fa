"""Files of detectors, for the detectors themselves and for the one inside Mask Frozen-DETR."""

from queryseg.detectors.convert import DETECTOR_LAYOUTS, inside

LAYOUTS = (
    *DETECTOR_LAYOUTS,
    *(inside(layout, "detector.") for layout in DETECTOR_LAYOUTS),
)
