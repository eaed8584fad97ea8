"""What README.md and docs/api.md show is run, in order, in one shell a page, and compared with what they say of it.

A block ```sh after `<!-- run -->` must succeed, its HTTP requests too; after `<!-- run 409 -->` it must fail by that
status. A ```json block right after it is its output: with what the page leaves out by `...`, of the same shape.
"""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from harness.stack import Stack

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = ("README.md", "docs/api.md")
BLOCK: Final = re.compile(
    r"<!-- run ?(\d{3})? -->\n```sh\n(.*?)^```\n(?:```json\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE
)
# What a value is matters where it is one of a few; elsewhere only of what kind it is.
TOLD: Final = {"status", "code", "type", "title", "rule", "offered", "pointer", "state", "ok", "version", "metadata"}


class Block(NamedTuple):
    """One example: where it begins, the status it must fail with (None: it succeeds), its script and the output shown."""

    line: int
    status: str | None
    script: str
    shown: str | None


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [Block(text.count("\n", 0, found.start()) + 1, *found.groups()) for found in BLOCK.finditer(text)]


def script(page: str, examples: list[Block]) -> str:
    """All of them, each with its output in a file named after its line."""
    lines = ["set -euo pipefail"]
    for line, status, body, _ in examples:
        lines.append(f"echo '{page}:{line}' >> at")
        if status is None:
            lines.append(f"{{\n{body}\n}} > out.{line}")
        else:
            lines.append(f"{{\n{body}\n}} > out.{line} 2> err.{line} || true")
            lines.append(f"grep -q 'returned error: {status}' err.{line}")
    return "\n".join(lines)


def without_dots(shown: str) -> Any:
    """The JSON of a page, without its `...`."""
    return json.loads(re.sub(r",?\s*\.\.\.(?=\s*[\]}])", "", shown))


def differs(shown: Any, real: Any, at: str = "") -> str | None:
    """Where a real answer is not what is shown of it; None where it is. What a list shows must be among what it holds."""
    if isinstance(shown, dict) and isinstance(real, dict):
        if missing := sorted(shown.keys() - real.keys()):
            return f"{at}/{missing[0]} is missing"
        return next(filter(None, (differs(shown[name], real[name], f"{at}/{name}") for name in shown)), None)
    if isinstance(shown, list) and isinstance(real, list):
        none = (one for one in shown if all(differs(one, other, at) for other in real))
        return next((f"{at} holds no {one!r}" for one in none), None)
    same = shown == real if at.rpartition("/")[2] in TOLD else type(shown) is type(real)
    return None if same else f"{at} is {real!r}, the page says {shown!r}"


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_do_what_the_page_says(page: str, stack: Stack, tmp_path: Path) -> None:
    examples = blocks(page)
    assert examples, f"{page} has no block to run"
    env = os.environ | {"KALENDS_URL": stack.urls[0], "KALENDS_API_KEY": stack.key}
    done = subprocess.run(
        ["bash", "-c", script(page, examples)],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=560,
        check=False,
    )
    last = (tmp_path / "at").read_text().split()[-1]
    outputs = {block.line: (tmp_path / f"out.{block.line}") for block in examples}
    said = outputs[int(last.rpartition(":")[2])].read_text()
    assert done.returncode == 0, f"{last} ended with {done.returncode}: {said[-600:]}\n{done.stderr[-600:]}"
    for block in examples:
        if block.shown is not None:
            real = json.JSONDecoder().raw_decode(outputs[block.line].read_text())[0]
            wrong = differs(without_dots(block.shown), real)
            assert wrong is None, f"{page}:{block.line}: {wrong}"


def test_a_page_that_says_otherwise_is_found() -> None:
    real = {"status": "confirmed", "id": "bkg_1", "rules": [{"ok": True}]}
    assert differs(without_dots('{"status": "confirmed", "rules": [{"ok": true}, ...], ...}'), real) is None
    assert differs({"status": "pending"}, real) == "/status is 'confirmed', the page says 'pending'"
    assert differs({"name": "Ada"}, real) == "/name is missing"
    assert differs({"rules": [{"ok": False}]}, real) == "/rules holds no {'ok': False}"
    assert differs({"id": 1}, real) is not None
