"""What runs on a machine that ``p2pdist push`` fetches: a node in a folder that goes again.

:data:`PROGRAM` is sent over ssh and run by the machine's own python3; nothing but Python's own
library is there yet. It comes first on standard input, as one line, then one line of JSON, then the
archive. When standard input ends, because all is done or the connection broke, the node is stopped
and the folder removed. The descriptor with its secret and the node's key live in that folder, 0700.

Job: that program, and the command that starts it. Tests: ``test_push``.
"""

from __future__ import annotations

import json
from typing import Any, Final

COMMAND: Final = "import sys; exec(eval(sys.stdin.buffer.readline()))"
"""For ``python3 -c``; without any character that a shell could take for its own, inside quotes."""
SAYS: Final = "p2pdist-push: "
"""Before what the program itself says."""

PROGRAM: Final = """\
import json, os, shutil, signal, subprocess, sys, tarfile, tempfile, threading

def say(text):
    print("p2pdist-push: " + text, flush=True)

source = sys.stdin.buffer
told = json.loads(source.readline())
mine = [sys.version_info[0], sys.version_info[1], os.uname().machine]
if mine != told["kind"]:
    say("has Python %d.%d on %s, the sender %d.%d on %s; see --python" % (*mine, *told["kind"]))
    sys.exit(4)
top = tempfile.mkdtemp(prefix="p2pdist-push-")
code, over = 1, threading.Event()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
signal.signal(signal.SIGHUP, lambda *_: sys.exit(1))
try:
    left = told["bytes"]
    with open(os.path.join(top, "bundle"), "wb") as bundle:
        while left:
            data = source.read(min(left, 1 << 16))
            if not data:
                sys.exit(1)
            bundle.write(data)
            left -= len(data)
    site = os.path.join(top, "site")
    with tarfile.open(os.path.join(top, "bundle")) as bundle:
        if hasattr(tarfile, "data_filter"):
            bundle.extraction_filter = tarfile.data_filter
        bundle.extractall(site)
    os.unlink(os.path.join(top, "bundle"))
    descriptor = os.path.join(top, "content.desc")
    with open(os.open(descriptor, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(told["descriptor"])
    directory = os.path.expanduser(told["directory"])
    os.makedirs(directory, exist_ok=True)
    node = told["node"]
    if not node:
        host = os.environ.get("SSH_CONNECTION", "").split(" ")[0].split("%")[0]
        node = ("[%s]:%d" if ":" in host else "%s:%d") % (host, told["port"])
    options = ["-n", "--pidfile=", "p2pdist", "--descriptor", descriptor, "--node", node]
    options += ["--directory", directory, "--state-dir", os.path.join(top, "state")]
    options += told["options"]
    run = "from twisted.scripts.twistd import run; run()"
    environment = dict(os.environ, PYTHONPATH=site, PYTHONDONTWRITEBYTECODE="1")
    child = subprocess.Popen(
        [sys.executable, "-c", run, *options], env=environment, stdin=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    try:
        def wait_for_end():
            source.read()
            over.set()
            child.terminate()
        threading.Thread(target=wait_for_end, daemon=True).start()
        code = child.wait()
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
except SystemExit as leaving:
    code = int(leaving.code or 1)
except OSError as error:
    say(str(error))
    code = 4
finally:
    shutil.rmtree(top, ignore_errors=True)
os._exit(0 if over.is_set() else max(1, code))
"""


def head(told: dict[str, Any]) -> bytes:
    """Return what comes before the archive.

    Args:
        told: ``kind``, ``bytes`` of the archive, ``descriptor`` as text, ``directory``, ``node`` to
            ask first or ``""``, ``port`` of it at the address ssh came from, further ``options``.
    """
    return repr(PROGRAM).encode() + b"\n" + json.dumps(told).encode() + b"\n"
