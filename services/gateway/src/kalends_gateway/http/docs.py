"""/openapi.json, and /docs: the same document as one page to be read, which loads nothing from anywhere."""

from html import escape
from typing import Any, Final

import msgspec
from litestar import Request, Response
from litestar.handlers import HTTPRouteHandler

from kalends_gateway.http.openapi import DESCRIPTION, document, operations
from kalends_gateway.http.visit import visit_of
from kalends_shared.contracts.errors import STATUS, TITLES

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --ink: light-dark(#1b1f24, #e6e6e6); --link: light-dark(#0b5cad, #79b8ff); }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.55 system-ui, sans-serif; color: var(--ink); display: grid; grid-template-columns: 17rem minmax(0, 54rem); }
nav { position: sticky; top: 0; height: 100vh; overflow-y: auto; padding: 1.5rem 1rem; border-right: 1px solid var(--line); font-size: .85rem; }
nav b { display: block; margin: 1rem 0 .2rem; } nav a { display: block; padding: .1rem 0; }
main { padding: 1.5rem 2.5rem 6rem; } a { color: var(--link); text-decoration: none; } a:hover { text-decoration: underline; }
h2 { margin-top: 3rem; border-bottom: 1px solid var(--line); } h3 { margin: 2.5rem 0 .3rem; font-size: 1rem; }
code, pre { font: .85em/1.5 ui-monospace, monospace; } pre { background: var(--soft); padding: .8rem 1rem; overflow-x: auto; border-radius: 6px; }
.method { display: inline-block; min-width: 4.2rem; font-weight: 700; } .path { font-weight: 600; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; margin: .4rem 0 1rem; }
td, th { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line); }
td:first-child { white-space: nowrap; } small { opacity: .7; } summary { cursor: pointer; }
@media (max-width: 60rem) { body { display: block; } nav { position: static; height: auto; border: 0; } main { padding: 1rem; }
  td:first-child { white-space: normal; } code { overflow-wrap: anywhere; } }
"""


def pages() -> list[HTTPRouteHandler]:
    """The pages outside the API, made once, when the gateway starts. They need no key."""
    described = document()
    return [
        _served("/openapi.json", msgspec.json.encode(described), "application/json"),
        _served("/docs", _page(described).encode(), "text/html"),
    ]


def _served(path: str, body: bytes, kind: str) -> HTTPRouteHandler:
    async def show(request: Request[Any, Any, Any]) -> Response[bytes]:
        visit_of(request.scope).unit.rename(f"GET {path}")
        return Response(body, media_type=kind, headers={"cache-control": "no-cache"})

    return HTTPRouteHandler(path, http_method=["GET", "HEAD"])(show)


def _page(described: dict[str, Any]) -> str:
    schemas = described["components"]["schemas"]
    found = list(operations(described["paths"]))
    tags = [tag["name"] for tag in described["tags"]]
    groups = [(tag, [one for one in found if tag in one[2]["tags"]]) for tag in tags]
    menu = "".join(
        f"<b>{escape(tag)}</b>"
        + "".join(f'<a href="#{o["operationId"]}">{escape(o["summary"])}</a>' for _, _, o in ones)
        for tag, ones in groups
        if ones
    )
    body = "".join(
        f"<h2>{escape(tag)}</h2>" + "".join(_operation(*one, schemas) for one in ones) for tag, ones in groups if ones
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Kalends API</title><style>{_STYLE}</style></head><body>"
        f'<nav><a href="/openapi.json">OpenAPI 3.1 document</a>{menu}<b>Reference</b><a href="#errors">Errors</a><a href="#schemas">Objects</a></nav>'
        f"<main><h1>Kalends API</h1>{_prose(DESCRIPTION)}{body}{_errors()}{_schemas(schemas)}</main></body></html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    parts = [
        f'<h3 id="{operation["operationId"]}"><code><span class="method">{method}</span><span class="path">{escape(path)}</span></code></h3>',
        f"<p>{escape(operation['summary'])}. {_inline(operation['description'])}</p>",
    ]
    parameters = [p for p in operation["parameters"] if p.get("in") == "query"]
    if parameters:
        rows = "".join(_row(p["name"], p["schema"], required=p["required"]) for p in parameters)
        parts.append(f"<table><tr><th>Parameter</th><th></th></tr>{rows}</table>")
    if "requestBody" in operation:
        schema = next(iter(operation["requestBody"]["content"].values()))["schema"]
        name = schema.get("$ref", "").rpartition("/")[2]
        if name:
            parts.append(f"<p>Body: {_link(name)}</p>")
            if examples := schemas[name].get("examples"):
                parts.append(f"<pre>{escape(_pretty(examples[0]))}</pre>")
    parts.append(f"<p>Answers: {_answers(operation['responses'])}</p>")
    return "".join(parts)


def _answers(responses: dict[str, Any]) -> str:
    told = []
    for status, response in responses.items():
        content = response.get("content", {}).get("application/json", {}).get("schema", {}).get("$ref", "")
        name = content.rpartition("/")[2]
        told.append(f"<code>{status}</code>" + (f" {_link(name)}" if name else ""))
    return ", ".join(told)


def _errors() -> str:
    rows = "".join(
        f'<tr id="problem-{code}"><td><code>{code}</code></td><td>{status}</td><td>{escape(TITLES[code])}</td></tr>'
        for code, status in STATUS.items()
    )
    return f'<h2 id="errors">Errors</h2><table><tr><th>Code</th><th>Status</th><th></th></tr>{rows}</table>'


def _schemas(schemas: dict[str, Any]) -> str:
    return '<h2 id="schemas">Objects</h2>' + "".join(
        f'<h3 id="schema-{name}"><code>{name}</code></h3>'
        + _prose(schema.get("description", ""))
        + "<table>"
        + "".join(
            _row(member, kind, required=member in schema.get("required", ()))
            for member, kind in schema.get("properties", {}).items()
        )
        + "</table>"
        for name, schema in schemas.items()
    )


def _row(name: str, schema: dict[str, Any], *, required: bool) -> str:
    more = [f"default <code>{escape(_compact(schema['default']))}</code>"] if schema.get("default") is not None else []
    more += [
        f"{word} {schema[key]}"
        for key, word in (("minimum", "at least"), ("maximum", "at most"), ("maxLength", "at most characters:"))
        if key in schema
    ]
    text = escape(schema.get("description", ""))
    mark = "" if required else " <small>optional</small>"
    return f"<tr><td><code>{escape(name)}</code>{mark}</td><td>{_kind(schema)} <small>{' · '.join(more)}</small> {text}</td></tr>"


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return _link(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(f"<code>{escape(_compact(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    kind = schema.get("type", "any")
    return escape(" or ".join(kind) if isinstance(kind, list) else str(schema.get("format", kind)))


def _link(name: str) -> str:
    return f'<a href="#schema-{name}"><code>{name}</code></a>'


def _prose(text: str) -> str:
    return "".join(f"<p>{_inline(part)}</p>" for part in text.split("\n\n") if part.strip())


def _inline(text: str) -> str:
    """The two marks of Markdown that the texts use."""
    out = ""
    for i, part in enumerate(text.split("`")):
        if i % 2:
            out += f"<code>{escape(part)}</code>"
        else:
            out += "".join(
                f"<b>{escape(bold)}</b>" if j % 2 else escape(bold) for j, bold in enumerate(part.split("**"))
            )
    return out


def _pretty(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _compact(value: Any) -> str:
    return msgspec.json.encode(value).decode()
