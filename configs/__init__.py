"""LazyConfig files; load them by path with `queryseg.engine.load_config`."""
