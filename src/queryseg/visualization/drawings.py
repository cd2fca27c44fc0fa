"""What can be drawn: instances, and what the methods add to that."""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from queryseg.project_modules import project_modules
from queryseg.visualization.errors import PictureError
from queryseg.visualization.objects import DrawnObjects
from queryseg.visualization.painter import class_name, paint

if TYPE_CHECKING:
    from queryseg.predictor import Predictor


class Drawn(NamedTuple):
    """A picture (H', W', 3) uint8 RGB, and in a few words what is on it."""

    picture: np.ndarray
    caption: str


# Takes a predictor and an image (H, W, 3) uint8 RGB.
Drawing = Callable[["Predictor", np.ndarray], Drawn]


def draw_instances(predictor: "Predictor", image_rgb: np.ndarray) -> Drawn:
    """Masks, classes and scores of the predicted instances on the image."""
    instances = predictor(np.ascontiguousarray(image_rgb[:, :, ::-1]))
    objects = DrawnObjects.from_predictions(instances)
    counts = Counter(class_name(int(c), predictor.class_names) for c in objects.classes)
    caption = ", ".join(f"{count} {name}" for name, count in counts.items())
    return Drawn(paint(image_rgb, objects, predictor.class_names), caption or "nothing found")


def known_drawings() -> dict[str, Drawing]:
    """`instances`, and the `DRAWINGS` of every `queryseg.projects.<method>.draw`."""
    drawings: dict[str, Drawing] = {"instances": draw_instances}
    for module in project_modules("draw"):
        drawings.update(module.DRAWINGS)
    return drawings


def find_drawing(name: str) -> Drawing:
    """The drawing of a name.

    Raises:
        PictureError: there is none of that name.
    """
    drawings = known_drawings()
    if name not in drawings:
        raise PictureError(f"nothing is called {name!r}; known are {', '.join(sorted(drawings))}")
    return drawings[name]
