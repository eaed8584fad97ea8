"""docs/settings.md, made of the services' own descriptions: `python -m kalends_cli.settings_page > docs/settings.md`."""

import importlib
import sys
from collections.abc import Collection
from typing import Any, Final, get_args, get_type_hints

import msgspec
from msgspec import Meta

from kalends_cli.plan import SERVICES
from kalends_shared.settings import PREFIX, ServiceSettings, Settings

HEAD: Final = """\
# Settings

Made by `python -m kalends_cli.settings_page`; a test holds it current. `python -m kalends_gateway settings` (or that of another
service) prints the same as a commented file.

Every setting is an environment variable. Where `NAME_FILE` names a file, the value is read from it instead, so that
secrets need not stand in an environment. Lists are separated by commas. A process checks all of its settings before it
opens anything, says everything that is wrong with them, and ends with 2.
"""
TABLE: Final = "| variable | default | |\n|---|---|---|"


def page() -> str:
    parts = [HEAD, "## Every service\n", _table(ServiceSettings)]
    common = {field.name for field in msgspec.structs.fields(ServiceSettings)}
    for service in SERVICES:
        module = importlib.import_module(f"kalends_{service}.settings")
        known = set(common)
        for kind in _kinds(module):
            what = "Bootstrap" if kind.__name__ == "BootstrapSettings" else service.replace("_", "-").capitalize()
            own = _table(kind, known)
            parts.append(f"\n## {what}\n\n{own or 'Nothing besides.'}")
            known |= {field.name for field in msgspec.structs.fields(kind)}
    return "\n".join(parts) + "\n"


def _kinds(module: Any) -> list[type[Settings]]:
    """The Structs that a module itself defines, in its order."""
    found = [one for one in vars(module).values() if isinstance(one, type) and issubclass(one, Settings)]
    return [one for one in found if one.__module__ == module.__name__]


def _table(kind: type[Settings], without: Collection[str] = ()) -> str:
    hints = get_type_hints(kind, include_extras=True)
    rows = []
    for field in msgspec.structs.fields(kind):
        if field.name in without:
            continue
        metas = [meta for meta in getattr(hints[field.name], "__metadata__", ()) if isinstance(meta, Meta)]
        description = " ".join(filter(None, (meta.description for meta in metas)))
        choices = [choice for choice in get_args(get_args(hints[field.name])[0]) if isinstance(choice, str)]
        among = f" One of {', '.join(f'`{choice}`' for choice in choices)}." if choices else ""
        rows.append(f"| `{PREFIX}{field.name.upper()}` | {_default(field)} | {description}{among} |")
    return "\n".join([TABLE, *rows]) if rows else ""


def _default(field: Any) -> str:
    if field.required:
        return "required"
    value = field.default
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return "" if value is None or value in {"", ()} else f"`{value}`"


if __name__ == "__main__":
    sys.stdout.write(page())
