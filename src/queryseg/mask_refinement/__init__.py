"""Refinement of masks at the nodes of a quadtree, for any detector with boxes and a pyramid."""
