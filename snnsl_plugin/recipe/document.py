"""A recipe file as plain data, with the place of every key; and one document laid over another.

ruamel composes the YAML 1.2 nodes and resolves the scalars; only standard tags make values, so a recipe is data.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from snnsl_plugin.errors import BadRecipe

KeyPath: TypeAlias = tuple[str | int, ...]
#: Stands for a value that could not be read, so that it is not reported again as one of the wrong type.
UNREADABLE = object()
_TAGS = {f"tag:yaml.org,2002:{word}" for word in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp")}


class Place(NamedTuple):
    """Where a key was written; line and column count from 1, and are 0 on the command line."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


class Problem(NamedTuple):
    """One thing wrong with a recipe; problems sort by place."""

    place: Place
    key: str
    message: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (str(self.place), self.key, self.message)))


@dataclass
class Document:
    """Plain data, the place of each key path in it, and what was wrong on reading."""

    data: dict[str, Any]
    places: dict[KeyPath, Place]
    problems: list[Problem] = field(default_factory=list)

    def place(self, path: KeyPath) -> Place:
        """The place of a key, or of the nearest block around it that has one."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places[path]


def read(path: Path) -> Document:
    """Reads one file.

    Raises:
        BadRecipe: the file cannot be read, is not YAML, or is not one mapping.
    """
    start = Place(str(path), 1, 1)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRecipe([f"{path}: is not UTF-8 text (byte {error.start}): save it as UTF-8"]) from None
    except OSError as error:
        raise BadRecipe([f"{path}: cannot be read: {error.strerror or error}"]) from None
    root = compose(text, start)
    if root is None:
        raise BadRecipe([f"{start}: the file is empty: write at least data, model, train and pruning, or extends"])
    if not isinstance(root, MappingNode):
        raise BadRecipe([f"{start}: a recipe is a mapping of keys to values, not a {kind_of(root)}"])
    document = Document({}, {(): start})
    document.data = value_of(root, document, ())
    return document


def compose(text: str, start: Place) -> Node | None:
    """The YAML nodes of a text.

    Raises:
        BadRecipe: it is not YAML, with the place.
    """
    try:
        node: Node | None = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = _at(start, mark) if mark else start
        message = f"this is not YAML: {error.problem or error.context}"
        if "\\t" in message:
            message = "a tab cannot indent YAML: use spaces"
        elif "alias" in f"{error.problem} {error.context}":
            message += " (a text that begins with * or & must be quoted)"
        raise BadRecipe([f"{place}: {message}"]) from None
    except RecursionError:
        raise BadRecipe([f"{start}: this is nested too deeply to be a recipe"]) from None
    except YAMLError as error:
        raise BadRecipe([f"{start}: this is not YAML: {' '.join(str(error).split())}"]) from None
    return node


def value_of(node: Node, document: Document, path: KeyPath) -> Any:
    """The plain value of a node; places and problems go to the document, whose place of () is where the text starts."""
    seen: set[int] = set()
    resolver = YAML(typ="safe", pure=True).constructor

    def value(node: Node, path: KeyPath) -> Any:
        place = document.places.get(path) or _at(document.places[()], node.start_mark)

        def wrong(message: str, at: Place = place, key: KeyPath = path) -> object:
            document.problems.append(Problem(at, dotted(key), message))
            return UNREADABLE

        # An alias gives the same node again: refused, since it may hold itself, or double at each level.
        if id(node) in seen:
            return wrong("aliases (*name) are not read in recipes: write the value again, or use extends")
        if str(node.tag) not in _TAGS:
            return wrong(f"tags ({node.tag}) are not read in recipes: write a plain value")
        seen.add(id(node))
        if isinstance(node, SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                document.places[(*path, index)] = _at(document.places[()], item.start_mark)
                items.append(value(item, (*path, index)))
            return items
        if isinstance(node, MappingNode):
            block: dict[str, Any] = {}
            for key_node, item in node.value:
                at = _at(document.places[()], key_node.start_mark)
                if not isinstance(key_node, ScalarNode) or not str(key_node.tag).endswith(":str"):
                    wrong(f"a key must be a word, not {key_node.value!r}", at)
                    continue
                here = (*path, str(key_node.value))
                if key_node.value in block:
                    first = document.places[here]
                    wrong(f"this key is here twice (first in line {first.line}): keep one", at, here)
                    continue
                document.places[here] = at
                block[str(key_node.value)] = value(item, here)
            return block
        try:
            scalar = resolver.construct_object(node)
        except (YAMLError, ValueError) as error:
            return wrong(f"{node.value!r} cannot be read: {getattr(error, 'problem', None) or error}")
        return node.value if isinstance(scalar, datetime.date) else scalar

    return value(node, path)


def kind_of(node: Node) -> str:
    """What a node is called in an error."""
    return "list" if isinstance(node, SequenceNode) else "mapping" if isinstance(node, MappingNode) else "single value"


def dotted(path: KeyPath) -> str:
    """`train.optimizer.lr`, as overrides write it."""
    return ".".join(map(str, path))


def laid_over(below: Document, above: Document) -> Document:
    """The blocks of one document changed by another.

    Blocks are merged key by key, all else is replaced. A block that names another choice than the one below replaces
    it whole, so that no option of the old choice stays behind.
    """
    places = dict(below.places)

    def lay(path: KeyPath, low: Any, high: Any) -> Any:
        tag = "type" if path == ("pruning",) else "name"
        if isinstance(low, str) and isinstance(high, dict) and tag not in high:
            low, places[(*path, tag)] = {tag: low}, places[path]
        another = isinstance(low, dict) and isinstance(high, dict) and high.get(tag, low.get(tag)) != low.get(tag)
        if isinstance(low, dict) and isinstance(high, dict) and not another:
            if path in above.places:
                places[path] = above.places[path]
            return low | {
                key: lay((*path, key), low[key], value) if key in low else keep((*path, key), value)
                for key, value in high.items()
            }
        return keep(path, high)

    def keep(path: KeyPath, value: Any) -> Any:
        length = len(path)
        for old in [old for old in places if old[:length] == path]:
            del places[old]
        places.update({new: place for new, place in above.places.items() if new[:length] == path})
        return value

    return Document(lay((), below.data, above.data), places, [*below.problems, *above.problems])


def _at(start: Place, mark: Any) -> Place:
    return start._replace(line=mark.line + 1, column=mark.column + 1) if start.line else start
