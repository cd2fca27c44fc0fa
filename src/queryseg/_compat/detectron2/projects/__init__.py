"""Names of Detectron2's projects, which are part of the real package."""
