"""How the demo speaks: each request and answer as a reader would like to see them."""

import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import httpx
import msgspec
from rich.console import Console
from rich.syntax import Syntax
from rich.text import Text

T = TypeVar("T")


class StepError(Exception):
    """A step is not as it should be; the text says what was expected and what came."""


class Show:
    """Numbered steps, checks with a mark each, requests and answers in short."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.steps = 0
        self.checks = 0

    def step(self, title: str) -> None:
        self.steps += 1
        self.console.print()
        self.console.rule(Text(f"{self.steps}. {title}", style="bold cyan"), align="left", style="cyan")

    def check(self, what: str, holds: object, otherwise: object = "") -> None:
        """Prints what holds.

        Raises:
            StepError: it does not.
        """
        self.checks += 1
        if not holds:
            raise StepError(f"{what}: not so. {otherwise}")
        self.console.print(Text.assemble(("  ✓ ", "bold green"), what))

    def until(self, what: str, look: Callable[[], T | None], seconds: float = 60) -> T:
        """Looks again and again for what other processes bring about; gives the first true value.

        Raises:
            StepError: it did not come about in time.
        """
        began = time.monotonic()
        while not (seen := look()):
            if time.monotonic() - began > seconds:
                raise StepError(f"{what}: not within {seconds:g} s")
            time.sleep(0.05)  # the other side has no way to tell us
        took = (time.monotonic() - began) * 1000
        self.checks += 1
        self.console.print(Text.assemble(("  ✓ ", "bold green"), what, (f"  (after {took:.0f} ms)", "dim")))
        return seen

    def request(self, method: str, path: str, body: dict[str, Any] | None) -> None:
        self.console.print(Text.assemble(("  → ", "bold"), (method, "bold magenta"), " ", (path, "bold")))
        if body:
            self._json(body)

    def answer(self, response: httpx.Response, keep: tuple[str, ...], took_ms: float) -> None:
        style = "bold green" if response.is_success else "bold red"
        line = Text.assemble(("  ← ", "bold"), (f"{response.status_code} {response.reason_phrase}", style))
        self.console.print(line + Text(f"  {took_ms:.0f} ms", style="dim"))
        if response.content:
            whole = response.json()
            self._json({k: whole[k] for k in keep if k in whole} if keep and response.is_success else whole)

    def _json(self, value: Any) -> None:
        text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
        lines = "\n".join(f"      {line}" for line in text.splitlines())
        self.console.print(Syntax(lines, "json", background_color="default", word_wrap=True))


class Client:
    """The public API, spoken out loud. `keep` names the members of an answer that are worth showing."""

    def __init__(self, url: str, key: str, show: Show) -> None:
        self.show = show
        self.http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60)

    def call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        params: dict[str, str] | None = None,
        want: int = 200,
        keep: tuple[str, ...] = (),
        quiet: bool = False,
    ) -> Any:
        """One request; gives the parsed answer.

        Raises:
            StepError: another status than `want` came.
        """
        shown = f"/api/v1{path}" + (f"?{httpx.QueryParams(params)}" if params else "")
        if not quiet:
            self.show.request(method, shown, body)
        headers = {"Idempotency-Key": str(uuid.uuid4())} if method == "POST" else {}
        began = time.monotonic()
        response = self.http.request(method, f"/api/v1{path}", json=body, params=params, headers=headers)
        if not quiet or response.status_code != want:
            self.show.answer(response, keep, (time.monotonic() - began) * 1000)
        if response.status_code != want:
            raise StepError(f"{method} {shown}: expected {want}, got {response.status_code}")
        return response.json() if response.content else None
