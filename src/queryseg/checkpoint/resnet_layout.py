"""ResNets as torchvision and timm name them, for Detectron2's ResNet."""

from queryseg.checkpoint.layout import Layout

_STAGES = ((1, 2), (2, 3), (3, 4), (4, 5))

# A published backbone carries an ImageNet classifier, which no detector needs.
TORCHVISION_RESNET = Layout(
    "torchvision/timm ResNet",
    signature=("conv1.weight", "bn1.running_mean", "layer1.{i}.conv1.weight"),
    rules=(
        ("bn1.", "stem.conv1.norm."),
        ("conv1.", "stem.conv1."),
        *(
            rule
            for layer, res in _STAGES
            for rule in (
                (f"layer{layer}.{{i}}.bn{{c}}.", f"res{res}.{{i}}.conv{{c}}.norm."),
                (f"layer{layer}.{{i}}.downsample.1.", f"res{res}.{{i}}.shortcut.norm."),
                (f"layer{layer}.{{i}}.downsample.0.", f"res{res}.{{i}}.shortcut."),
                (f"layer{layer}.{{i}}.conv{{c}}.", f"res{res}.{{i}}.conv{{c}}."),
            )
        ),
    ),
    ignored=("fc.",),
)
