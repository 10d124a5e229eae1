"""The machines of the drills: they reach each other, until a cable is pulled or the power fails."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from machines import Machine, go_inside, why_not

SERVER = "import socket; server = socket.create_server(('', 7777))\nwhile True:\n    server.accept()[0].close()\n"
TRIES = 50


def scenario(folder: Path) -> dict[str, object]:
    """What one machine sees of another."""
    one, other = (Machine(name, number, folder / name) for number, name in enumerate(("one", "other"), start=1))
    for machine in (one, other):
        machine.connect()
    other.start(sys.executable, "-c", SERVER)
    reach = ("timeout", "1", "bash", "-c", f": < /dev/tcp/{other.address}/7777")
    seen: dict[str, object] = {"name": one.ask("hostname").stdout.strip()}
    seen["before"] = any(one.ask(*reach).returncode == 0 for _ in range(TRIES))
    other.cut()
    seen["cut"] = one.ask(*reach).returncode == 0
    other.mend()
    seen["mended"] = any(one.ask(*reach).returncode == 0 for _ in range(TRIES))
    seen["temporary files"] = one.ask("bash", "-c", "ls /tmp/ray /dev/shm | wc -w").stdout.split()
    other.lose()
    seen["lost"] = one.ask(*reach).returncode == 0
    seen["links"] = one.ask("ip", "-brief", "link").stdout.count("\n")
    return seen


@pytest.mark.skipif(why_not() is not None, reason=f"no machines here: {why_not()}")
def test_machines_reach_each_other_until_they_are_cut_off_or_lost(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, __file__, str(tmp_path)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == {
        "name": "one",
        "before": True,
        "cut": False,
        "mended": True,
        "temporary files": ["2"],
        "lost": False,
        "links": 2,
    }
    assert "to-one" not in Path("/proc/net/dev").read_text()


if __name__ == "__main__":
    go_inside()
    sys.stdout.write(json.dumps(scenario(Path(sys.argv[1]))))
