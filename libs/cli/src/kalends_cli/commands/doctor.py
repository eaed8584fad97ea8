"""`kalends doctor [retry | discard | restored]`: exits with 0 where all is well, else with 1.

The database is KALENDS_DATABASE_DIRECT_URL, else KALENDS_DATABASE_URL, else the local stack's.
`restored` asks for KALENDS_NATS_URL, too.
"""

import argparse
import asyncio
from typing import TYPE_CHECKING

from kalends_cli.home import Home
from kalends_cli.installation import database_url, nats_url
from kalends_cli.plan import SERVICES
from kalends_cli.problem import Problem

if TYPE_CHECKING:
    from kalends_cli.doctor import Findings


def add(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    retry = actions.add_parser("retry", help="have events that could not be applied tried again")
    retry.add_argument("--service", choices=SERVICES, help="only of this service")
    retry.add_argument("--stream", help="only of this stream, such as bkg_...")
    discard = actions.add_parser("discard", help="give up an event for good; what waits behind it is tried")
    discard.add_argument("--service", choices=SERVICES, required=True, help="whose consumer gives it up")
    discard.add_argument("event", help="the id that `kalends doctor` shows")
    actions.add_parser("restored", help="after a restore of the database, before the services start")


def run(arguments: argparse.Namespace) -> int:
    import asyncpg

    from kalends_cli import doctor

    home = Home(arguments.data_dir)
    url = database_url(home)
    try:
        if arguments.action == "retry":
            asked = asyncio.run(doctor.retry(url, arguments.service, arguments.stream))
            print(f"{asked} to be tried again; the active consumers do so within a second.")
            return 0
        if arguments.action == "discard":
            if not asyncio.run(doctor.discard(url, arguments.service, arguments.event)):
                raise Problem(f"{arguments.service} has no failed event {arguments.event}")
            print(
                f"{arguments.service} will do without {arguments.event}; what waits behind it is tried within a second."
            )
            return 0
        if arguments.action == "restored":
            return _settle(url, nats_url(home))
        findings = asyncio.run(doctor.examine(url))
    except (OSError, asyncpg.PostgresError) as error:
        raise Problem(f"the database cannot be read: {error}") from error
    unwell = _unwell(home)
    _show(findings, unwell)
    return 0 if findings.well and not unwell else 1


def _settle(url: str, bus: str) -> int:
    from kalends_cli import restored

    contexts = asyncio.run(restored.settle(url, bus))
    print(
        f"Settled {', '.join(contexts)}: new events follow the old ones, and the streams are made anew. Start the services."
    )
    return 0


def _unwell(home: Home) -> dict[str, str]:
    """Processes of a local stack that are not ready, and their state; none where none runs here."""
    return {name: state for name, state in home.health().items() if state != "ready"}


def _show(findings: "Findings", unwell: dict[str, str]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    for name, state in unwell.items():
        console.print(f"[red]✗[/] {name} is {state}")
    lags = Table("service", "reads", "behind", "oldest", box=None, header_style="bold")
    for lag in findings.lags:
        style = "red" if lag.late else ""
        lags.add_row(lag.service, lag.source, str(lag.events), f"{lag.seconds:.1f} s", style=style)
    console.print(lags)
    for lag in findings.lags:
        if lag.ahead:
            console.print(
                f"[red]✗[/] {lag.service} has applied events of {lag.source} that its database does not have: "
                "it was restored, and the services started before `kalends doctor restored`",
                soft_wrap=True,
            )
    for service, letters in findings.letters.items():
        for letter in letters:
            why = (letter.error or "waits behind a failed event of its stream").strip().splitlines()[-1]
            asked = " (to be tried again)" if letter.retry_requested else ""
            console.print(
                f"[red]✗[/] {service}: {letter.type} {letter.event_id} of {letter.stream_id} {letter.status}, "
                f"{letter.attempts} tries{asked}: {escape(why)}",
                soft_wrap=True,
            )
    if findings.well and not unwell:
        console.print("[green]✓[/] All is well.")
    elif any(findings.letters.values()):
        console.print("`kalends doctor retry` has them tried again.")
