"""Command-line tools, each run as `python -m queryseg.tools.<name>` or `queryseg <name>`."""
