"""Communication, events, logging, files and pictures."""
