"""How an official release names its parameters, and how the same parameters are named here."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from string import Formatter
from typing import Any

Covers = str | tuple[str, ...]
"""One or several prefixes of parameter names; the empty one stands for all names."""


@dataclass(frozen=True)
class NamePattern:
    """A parameter name with `{i}`-style integer placeholders, or a prefix of such names.

    A pattern that ends in "." (or is empty) stands for every name below it; any other pattern
    stands for whole names only.
    """

    text: str

    @property
    def is_prefix(self) -> bool:
        """Whether the pattern stands for everything below it."""
        return self.text == "" or self.text.endswith(".")

    @cached_property
    def placeholders(self) -> frozenset[str]:
        """Names between braces."""
        return frozenset(field for _, field, _, _ in Formatter().parse(self.text) if field)

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        expression, seen = "", set[str]()
        for literal, field, _, _ in Formatter().parse(self.text):
            expression += re.escape(literal)
            if field:
                expression += f"(?P={field})" if field in seen else f"(?P<{field}>[0-9]+)"
                seen.add(field)
        return re.compile(expression)

    def match(self, name: str) -> tuple[dict[str, str], str] | None:
        """Placeholder values and the rest of the name behind a prefix; None where it differs."""
        found = self._regex.match(name) if self.is_prefix else self._regex.fullmatch(name)
        return (found.groupdict(), name[found.end() :]) if found else None

    def fill(self, values: Mapping[str, str], rest: str) -> str:
        """The name that this pattern gives for placeholder values and the rest of a name."""
        return self.text.format(**values) + rest


@dataclass(frozen=True)
class Layout:
    """Two-way naming rules between one family of official checkpoints and our models.

    Args:
        name: what the family is called in reports, e.g. "FastInst official".
        signature: patterns of official names that must all occur in a state dict for it to count
            as this family.
        rules: (official pattern, our pattern) pairs; the first that matches wins, in both
            directions. Both sides carry the same placeholders, and both are whole names or both
            are prefixes (ending in ".", or empty).
        ignored: patterns of official names that our model has no use for (aliases, constants).
        covers: prefix, or prefixes, of the part of our model that such a file fills; "" is the
            whole model. A method that builds on another one's detector names the detector here.

    Raises:
        ValueError: the two sides of a rule do not fit together.

    >>> layout = Layout(
    ...     "example", signature=("head.cls.{i}.weight",), ignored=("criterion.",),
    ...     rules=(("head.cls.{i}.", "decoder.heads.{i}.class_embed."), ("backbone.", "backbone.")),
    ... )
    >>> layout.to_ours("head.cls.2.bias")
    'decoder.heads.2.class_embed.bias'
    >>> layout.to_official("decoder.heads.2.class_embed.bias")
    'head.cls.2.bias'
    """

    name: str
    signature: tuple[str, ...]
    rules: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...] = ()
    covers: Covers = ""

    def __post_init__(self) -> None:
        for official, ours in self._patterns:
            if official.is_prefix != ours.is_prefix:
                raise ValueError(
                    f"layout {self.name!r}: {official.text!r} -> {ours.text!r} mixes a prefix "
                    '(ends in ".") with a whole name'
                )
            if official.placeholders != ours.placeholders:
                raise ValueError(
                    f"layout {self.name!r}: {official.text!r} -> {ours.text!r} have different "
                    "placeholders"
                )

    @cached_property
    def _patterns(self) -> tuple[tuple[NamePattern, NamePattern], ...]:
        return tuple((NamePattern(official), NamePattern(ours)) for official, ours in self.rules)

    @cached_property
    def _ignored(self) -> tuple[NamePattern, ...]:
        return tuple(NamePattern(text) for text in self.ignored)

    @cached_property
    def _signature(self) -> tuple[NamePattern, ...]:
        return tuple(NamePattern(text) for text in self.signature)

    def to_ours(self, name: str) -> str | None:
        """Our name of an official parameter; None where it is ignored or unknown."""
        if self.is_ignored(name):
            return None
        for official, ours in self._patterns:
            if found := official.match(name):
                return ours.fill(*found)
        return None

    def to_official(self, name: str) -> str | None:
        """The official name of one of our parameters; None where the release has none."""
        for official, ours in self._patterns:
            if found := ours.match(name):
                return official.fill(*found)
        return None

    def is_ignored(self, name: str) -> bool:
        """Whether an official parameter is dropped on purpose."""
        return any(pattern.match(name) for pattern in self._ignored)

    def recognises(self, names: Iterable[str]) -> bool:
        """Whether a state dict with these names carries the whole signature."""
        names = list(names)
        return all(any(p.match(name) for name in names) for p in self._signature)

    def convert(self, state_dict: Mapping[str, Any]) -> dict[str, Any]:
        """Rename an official state dict.

        Ignored entries are dropped. Entries without a rule keep their official name, so that a
        load report lists them as unexpected. Where several official names stand for one parameter
        of ours (shared modules), the first is kept.

        Args:
            state_dict: official name -> tensor.

        Returns:
            Our name -> the same tensor objects, in the given order.
        """
        converted: dict[str, Any] = {}
        for name, value in state_dict.items():
            if not self.is_ignored(name):
                converted.setdefault(self.to_ours(name) or name, value)
        return converted

    def convert_back(self, state_dict: Mapping[str, Any]) -> dict[str, Any]:
        """Rename one of our state dicts to the official names; entries without one are dropped."""
        renamed = ((self.to_official(name), value) for name, value in state_dict.items())
        return {name: value for name, value in renamed if name is not None}
