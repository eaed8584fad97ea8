"""Public Structs as JSON Schema 2020-12.

msgspec's own generator cannot write the default of a field that holds raw JSON, which metadata does; and one Struct is
not one schema. All members of an answer are there. A body has those that are required, knows no others, and takes null
for what is left out, at every depth. Of a patch (RFC 7396) nothing is required, also not of the objects in it. So a
Struct that serves twice has two names: Payment, PaymentIn, PaymentPatch.
"""

from typing import Any, Final, Literal

import msgspec
from msgspec import inspect as mi

REF: Final = "#/components/schemas/"
Schema = dict[str, Any]
Use = Literal["answer", "body", "patch"]

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
# What a schema can say of the checks of contracts.checks.
_CHECKS: Final[dict[str, Schema]] = {
    "clock_time": {"pattern": "^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"},
    "metadata": {"maxProperties": 50, "propertyNames": {"minLength": 1, "maxLength": 40}},
}


class Schemas:
    """The schemas of Structs and of all that they hold, by name. Answers come first: by them bodies are named."""

    def __init__(self) -> None:
        self.found: dict[str, Schema] = {}
        self._answers: set[type] = set()

    def add(self, kind: type[msgspec.Struct], use: Use) -> str:
        """Describes a Struct; gives the name of its schema."""
        return str(self._of(mi.type_info(kind), use)["$ref"]).removeprefix(REF)

    def parameters(self, kind: type[msgspec.Struct]) -> tuple[dict[str, Schema], list[str]]:
        """The members of a query's Struct and the names of those that are required; one that is not set is left out."""
        described = mi.type_info(kind)
        assert isinstance(described, mi.StructType)
        members = {
            field.encode_name: _defaulted(self._of(_set(field.type), "body"), field) for field in described.fields
        }
        return members, _required(described)

    def _of(self, kind: mi.Type, use: Use) -> Schema:
        match kind:
            case mi.Metadata():
                told = {**(kind.extra_json_schema or {}), **_CHECKS.get((kind.extra or {}).get("check", ""), {})}
                if use == "answer":
                    # Readers of it would judge anew, by rules of their own: some take no e-mail address at .test for one.
                    told.pop("format", None)
                return {**self._of(kind.type, use), **told}
            case mi.StructType():
                return self._struct(kind, use)
            case mi.UnionType():
                (only,) = (self._of(one, use) for one in kind.types if not isinstance(one, mi.NoneType))
                return _or_null(only)
            case mi.ListType() | mi.VarTupleType():
                # A patch replaces a list whole, so what is in it is no patch.
                items = self._of(kind.item_type, "body" if use == "patch" else use)
                return {"type": "array", "items": items, **_lengths(kind, "Items")}
            case mi.DictType():
                return {"type": "object", "additionalProperties": self._of(kind.value_type, use)}
            case mi.LiteralType():
                return {"type": "string", "enum": list(kind.values)}
            case mi.StrType():
                pattern = {} if kind.pattern is None else {"pattern": kind.pattern}
                return {"type": "string", **_lengths(kind, "Length"), **pattern}
            case mi.IntType():
                bounds = {word: getattr(kind, name) for name, word in _BOUNDS.items()}
                return {"type": "integer", **{word: bound for word, bound in bounds.items() if bound is not None}}
        return dict(_SIMPLE[type(kind)])

    def _struct(self, kind: mi.StructType, use: Use) -> Schema:
        name = self._name(kind.cls, use)
        if name not in self.found:
            schema = self.found[name] = {"type": "object"}
            schema["properties"] = {field.encode_name: self._member(field, use) for field in kind.fields}
            if required := self._always(kind, use):
                schema["required"] = required
            if use != "answer":
                schema["additionalProperties"] = False
            if text := kind.cls.__dict__.get("__doc__"):
                schema["description"] = " ".join(text.split())
        return {"$ref": REF + name}

    def _name(self, cls: type, use: Use) -> str:
        name = cls.__name__
        if use == "answer":
            self._answers.add(cls)
            return name
        if use == "patch":
            return name.removesuffix("In").removesuffix("Patch") + "Patch"
        return f"{name}In" if cls in self._answers else name

    def _member(self, field: mi.Field, use: Use) -> Schema:
        schema = self._of(field.type, use)
        if use == "answer" or field.required:
            return schema
        return _or_null(schema if use == "patch" else _defaulted(schema, field))

    def _always(self, kind: mi.StructType, use: Use) -> list[str]:
        if use == "answer" and not kind.cls.__struct_config__.omit_defaults:
            return [field.encode_name for field in kind.fields]
        return [] if use == "patch" else _required(kind)


def _required(kind: mi.StructType) -> list[str]:
    return [field.encode_name for field in kind.fields if field.required]


def _set(kind: mi.Type) -> mi.Type:
    """What a type is where it is not null."""
    if isinstance(kind, mi.UnionType):
        (kind,) = (one for one in kind.types if not isinstance(one, mi.NoneType))
    return kind


def _defaulted(schema: Schema, field: mi.Field) -> Schema:
    default = field.default if field.default is not msgspec.NODEFAULT else None
    if default is None and field.default_factory is not msgspec.NODEFAULT:
        default = field.default_factory()
    if default is None:
        return schema
    written = msgspec.json.encode(default).decode()
    value = msgspec.json.decode(written)
    # An object is told in words: generators of clients leave out a whole Struct that has one for a default.
    if isinstance(value, dict):
        return {**schema, "description": f"Default: `{written}`."}
    return {**schema, "default": value}


def _or_null(schema: Schema) -> Schema:
    """The schema or null, in the form that most generators of clients read well; a default and a description stay outside."""
    kind = schema.get("type")
    if isinstance(kind, list) or "anyOf" in schema or not schema:
        return schema
    if kind is not None and "enum" not in schema:
        return {**schema, "type": [kind, "null"]}
    told: Schema = {word: schema[word] for word in ("default", "description") if word in schema}
    return {"anyOf": [{word: value for word, value in schema.items() if word not in told}, {"type": "null"}], **told}


def _lengths(kind: Any, of: str) -> Schema:
    bounds = {f"min{of}": kind.min_length, f"max{of}": kind.max_length}
    return {word: bound for word, bound in bounds.items() if bound is not None}
