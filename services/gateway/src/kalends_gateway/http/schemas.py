"""Public Structs as JSON Schema 2020-12.

msgspec's own generator cannot write the default of a field that holds raw JSON, which metadata does; and an answer's
schema differs from a body's: all its members are there.
"""

from typing import Any, Final

import msgspec
from msgspec import inspect as mi

REF: Final = "#/components/schemas/"
Schema = dict[str, Any]

_BOUNDS: Final = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}
_SIMPLE: Final[dict[type[mi.Type], Schema]] = {
    mi.BoolType: {"type": "boolean"},
    mi.FloatType: {"type": "number"},
    mi.DateTimeType: {"type": "string", "format": "date-time"},
    mi.DateType: {"type": "string", "format": "date"},
    mi.NoneType: {"type": "null"},
    mi.AnyType: {},
    mi.RawType: {},
}


class Schemas:
    """The schemas of Structs and of all that they hold, by name."""

    def __init__(self, answers: frozenset[type[msgspec.Struct]]) -> None:
        """`answers` are the Structs of which every member is given."""
        self.found: dict[str, Schema] = {}
        self._answers = answers

    def add(self, kind: type[msgspec.Struct]) -> Schema:
        """Describes a Struct, and gives a reference to it."""
        return self._of(mi.type_info(kind))

    def properties(self, kind: type[msgspec.Struct]) -> tuple[dict[str, Schema], list[str]]:
        """A Struct's members and the names of those that are required."""
        described = mi.type_info(kind)
        assert isinstance(described, mi.StructType)
        return self._members(described)

    def _of(self, kind: mi.Type) -> Schema:
        match kind:
            case mi.Metadata():
                return {**self._of(kind.type), **(kind.extra_json_schema or {})}
            case mi.StructType():
                return self._struct(kind)
            case mi.UnionType():
                return _union([self._of(one) for one in kind.types])
            case mi.ListType() | mi.VarTupleType():
                return {"type": "array", "items": self._of(kind.item_type), **_lengths(kind, "Items")}
            case mi.DictType():
                return {"type": "object", "additionalProperties": self._of(kind.value_type)}
            case mi.LiteralType():
                return {"type": "string", "enum": list(kind.values)}
            case mi.StrType():
                pattern = {} if kind.pattern is None else {"pattern": kind.pattern}
                return {"type": "string", **_lengths(kind, "Length"), **pattern}
            case mi.IntType():
                bounds = {word: getattr(kind, name) for name, word in _BOUNDS.items()}
                return {"type": "integer", **{word: bound for word, bound in bounds.items() if bound is not None}}
        return dict(_SIMPLE[type(kind)])

    def _struct(self, kind: mi.StructType) -> Schema:
        name = kind.cls.__name__
        if name not in self.found:
            schema = self.found[name] = {"type": "object"}
            schema["properties"], required = self._members(kind)
            if kind.cls in self._answers:
                required = list(schema["properties"])
            if required:
                schema["required"] = required
            if text := kind.cls.__dict__.get("__doc__"):
                schema["description"] = " ".join(text.split())
        return {"$ref": REF + name}

    def _members(self, kind: mi.StructType) -> tuple[dict[str, Schema], list[str]]:
        members = {}
        for field in kind.fields:
            schema = self._of(field.type)
            default = field.default if field.default is not msgspec.NODEFAULT else None
            if default is None and field.default_factory is not msgspec.NODEFAULT:
                default = field.default_factory()
            if default is not None:
                schema = {**schema, "default": msgspec.json.decode(msgspec.json.encode(default))}
            members[field.encode_name] = schema
        return members, [field.encode_name for field in kind.fields if field.required]


def _union(kinds: list[Schema]) -> Schema:
    """A type or null is written as one schema where that can be."""
    others = [kind for kind in kinds if kind != {"type": "null"}]
    if len(others) == 1 and len(kinds) == 2 and isinstance(others[0].get("type"), str):
        only = others[0]
        enum = {"enum": [*only["enum"], None]} if "enum" in only else {}
        return {**only, "type": [only["type"], "null"], **enum}
    return {"anyOf": kinds}


def _lengths(kind: Any, of: str) -> Schema:
    bounds = {f"min{of}": kind.min_length, f"max{of}": kind.max_length}
    return {word: bound for word, bound in bounds.items() if bound is not None}
