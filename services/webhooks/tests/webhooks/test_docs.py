"""The verification code of docs/webhooks.md, run on real deliveries."""

import asyncio
import re
import shutil
import sys
from pathlib import Path

import pytest

from .receiver import Got, Receiver
from .rig import Rig

PAGE = (Path(__file__).parents[4] / "docs" / "webhooks.md").read_text()


def code(language: str) -> str:
    found = re.search(rf"<!-- tested: {language} -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    assert found, f"docs/webhooks.md has code for {language}"
    return found[1]


async def delivered(rig: Rig, receiver: Receiver) -> tuple[list[str], Got]:
    """Both valid secrets of a webhook, and what came to it."""
    made = await rig.subscribe(receiver.url(), ["booking.confirmed"])
    rotated = await rig.ask("rotate_secret", {}, id=made["id"])
    await rig.book()
    return [made["secret"], rotated["secret"]], (await receiver.wait(1))[0]


HARNESS = {
    "python": """{code}
import sys
h, *s = sys.argv[1:]; b = sys.stdin.buffer.read()
print("".join(str(int(verify(x, h, b))) for x in s), int(verify(s[0], h, b + b" ")), int(verify(s[0], h, b, -1)))
""",
    "node": """{code}
const b = require("fs").readFileSync(0), [h, ...s] = process.argv.slice(1), n = (x) => (x ? 1 : 0);
console.log(s.map((x) => n(verify(x, h, b))).join(""), n(verify(s[0], h, Buffer.concat([b, Buffer.from(" ")]))), n(verify(s[0], h, b, -1)));
""",
    "php": """{code}
$b = stream_get_contents(STDIN); $h = $argv[1]; $s = array_slice($argv, 2);
echo implode("", array_map(fn($x) => (int) verify($x, $h, $b), $s)), " ", (int) verify($s[0], $h, $b . " "), " ", (int) verify($s[0], $h, $b, -1);
""",
}
RUN = {"python": [sys.executable, "-c"], "node": ["node", "-e"], "php": ["php", "-r"]}


@pytest.mark.parametrize("language", [name for name, command in RUN.items() if shutil.which(command[0])])
async def test_a_receiver_that_does_as_the_page_says(rig: Rig, receiver: Receiver, language: str):
    """Python always, the others where their interpreter is at hand."""
    secrets, got = await delivered(rig, receiver)
    script = HARNESS[language].replace("{code}", code(language))
    arguments = [*(["--"] if language == "php" else []), got.headers["kalends-signature"], *secrets, "whsec_another"]
    process = await asyncio.create_subprocess_exec(
        *RUN[language], script, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate(got.body)
    assert out.decode().strip() == "110 0 0", "both secrets, no other; not another body; not an old one"
