"""The five methods, one folder each."""
