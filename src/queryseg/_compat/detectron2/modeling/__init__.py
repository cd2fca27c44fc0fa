"""Parts of detection models."""
