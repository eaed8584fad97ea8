"""The verification code of docs/webhooks.md, run on real deliveries."""

import asyncio
import re
from pathlib import Path

import pytest

from .interpreters import interpreter
from .receiver import Got, Receiver
from .rig import Rig

PAGE = (Path(__file__).parents[4] / "docs" / "webhooks.md").read_text("utf-8")

# Each reads the header and secrets from its arguments and the body from its input, and prints: whether each secret takes
# it, whether another body is taken, whether it is taken when it is too old, whether any header is that is none.
PROGRAMS = {
    "python": """{code}
import sys
h, *s = sys.argv[1:]; b = sys.stdin.buffer.read()
w = any(verify(s[0], x, b) for x in [{malformed}, *(h.split(",")[0] + x for x in [{unsigned}])])
print("".join(str(int(verify(x, h, b))) for x in s), int(verify(s[0], h, b + b" ")), int(verify(s[0], h, b, -1)), int(w))
""",
    "node": """{code}
const b = require("fs").readFileSync(0), [h, ...s] = process.argv.slice(2), n = (x) => (x ? 1 : 0);
const w = [{malformed}, ...[{unsigned}].map((x) => h.split(",")[0] + x)].some((x) => verify(s[0], x, b));
console.log(s.map((x) => n(verify(x, h, b))).join(""), n(verify(s[0], h, Buffer.concat([b, Buffer.from(" ")]))), n(verify(s[0], h, b, -1)), n(w));
""",
    "php": """<?php
{code}
$b = stream_get_contents(STDIN); $h = $argv[1]; $s = array_slice($argv, 2);
$w = array_filter([{malformed}, ...array_map(fn($x) => explode(",", $h)[0] . $x, [{unsigned}])], fn($x) => verify($s[0], $x, $b));
echo implode("", array_map(fn($x) => (int) verify($x, $h, $b), $s)), " ", (int) verify($s[0], $h, $b . " "), " ", (int) verify($s[0], $h, $b, -1), " ", count($w);
""",
    "go": """package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

{code}

func n(taken bool) int {
	if taken {
		return 1
	}
	return 0
}

func main() {
	body, _ := io.ReadAll(os.Stdin)
	header, secrets := os.Args[1], os.Args[2:]
	for _, secret := range secrets {
		fmt.Print(n(Verify(secret, header, body, 5*time.Minute)))
	}
	other := append(append([]byte{}, body...), ' ')
	taken := false
	for _, one := range []string{{malformed}} {
		taken = taken || Verify(secrets[0], one, body, 5*time.Minute)
	}
	for _, one := range []string{{unsigned}} {
		taken = taken || Verify(secrets[0], strings.Split(header, ",")[0]+one, body, 5*time.Minute)
	}
	fmt.Println("", n(Verify(secrets[0], header, other, 5*time.Minute)), n(Verify(secrets[0], header, body, -time.Second)), n(taken))
}
""",
}
# What anybody may send: headers without a time, and what can stand behind a time that is right.
MALFORMED = '"", ",", "t", "v1", "t=", "t=,v1=", "t=x,v1=x", "t=-1,v1=", "t=99999999999999999999,v1=00", "v1=00"'
UNSIGNED = '"", ",v1", ",v1=", ",v1=00", ",v1=é", ",v1=zz,=,", ",=="'
FILES = {"python": "main.py", "node": "main.js", "php": "main.php", "go": "main.go"}
FIRST = {"go": ["run"]}


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


def test_the_page_has_code_in_four_languages():
    assert set(re.findall(r"<!-- tested: (\w+) -->", PAGE)) == set(PROGRAMS)


@pytest.mark.parametrize("language", PROGRAMS)
async def test_a_receiver_that_does_as_the_page_says(rig: Rig, receiver: Receiver, language: str, tmp_path: Path):
    program = interpreter(language)
    source = tmp_path / FILES[language]
    text = PROGRAMS[language].replace("{code}", code(language))
    source.write_text(text.replace("{malformed}", MALFORMED).replace("{unsigned}", UNSIGNED))
    secrets, got = await delivered(rig, receiver)
    process = await asyncio.create_subprocess_exec(
        *(program, *FIRST.get(language, []), str(source), got.headers["kalends-signature"], *secrets, "whsec_another"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate(got.body)
    assert out.decode().strip() == "110 0 0 0", "both secrets, no other; not another body; not an old one; nothing else"
