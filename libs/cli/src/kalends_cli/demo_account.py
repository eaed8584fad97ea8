"""The account that a local stack comes with, and its key: admin, without a rate limit, kept for as long as it works."""

import http.client
import json
import subprocess
from urllib.parse import urlsplit

from kalends_cli.home import Home
from kalends_cli.plan import environment, python, stored_plan
from kalends_cli.problem import Problem


class DemoAccount:
    """`begin` may be called as soon as the schemas are there; the rest goes on while the services start."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._making: subprocess.Popen[str] | None = None

    def begin(self) -> None:
        """Starts to make the account, where no earlier start of this stack has left a key."""
        if "KALENDS_API_KEY" not in self._home.env():
            self._make()

    def key(self, url: str) -> str:
        """The key that was there, where it still opens the door at `url`, else that of the account made now.

        Raises:
            Problem: it cannot be made.
        """
        old = self._home.env().get("KALENDS_API_KEY")
        if old is not None and _opens(url, old):
            return old
        making = self._making or self._make()
        told, complaint = making.communicate()
        if making.returncode != 0:
            raise Problem(f"the demo account cannot be made:\n{complaint}")
        key: str = json.loads(told)["api_key"]
        return key

    def _make(self) -> subprocess.Popen[str]:
        plan = stored_plan(self._home)
        self._making = subprocess.Popen(
            python("kalends_gateway", "bootstrap"),
            env=environment(plan, self._home),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self._making


def _opens(url: str, key: str) -> bool:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request("GET", "/api/v1/profile", headers={"Authorization": f"Bearer {key}"})
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()
