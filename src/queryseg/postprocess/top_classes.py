"""The best (query, class) pairs of an image."""

from torch import Tensor


def top_classes(class_probs: Tensor, max_detections: int) -> tuple[Tensor, Tensor, Tensor]:
    """Take the highest class probabilities over all queries; a query may occur with two classes.

    Args:
        class_probs: (Q, K) without "no object".
        max_detections: how many pairs to keep; all of them where there are fewer.

    Returns:
        scores (n,), classes (n,) int64 and query_idx (n,) int64, by falling score.
    """
    num_classes = class_probs.shape[1]
    candidates = class_probs.flatten()
    scores, pair_idx = candidates.topk(min(max_detections, len(candidates)))
    return scores, pair_idx % num_classes, pair_idx // num_classes
