"""What the Python clients share: the talk with the test, and the count of what went wrong.

The test writes a word a line to standard input and reads one JSON object a line from standard output:
"report" asks for the counts so far, "stop" for the final check and the end.
"""

import json
import sys
import threading
import time

# A fault may take the service away for a while; what does not work for so long is broken.
PATIENCE = 60


class Counts:
    """What has happened so far."""

    def __init__(self):
        self.rounds = 0
        self.errors = []
        self.acknowledged = []

    def report(self, **more):
        said = {"rounds": self.rounds, "errors": len(self.errors), "last": self.errors[-1:], **more}
        print(json.dumps(said), flush=True)


class Orders:
    """The test's words, read by a thread of their own so that nobody waits for them."""

    def __init__(self):
        self.words = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in sys.stdin:
            self.words.append(line.strip())
        self.words.append("stop")

    def take(self):
        return self.words.pop(0) if self.words else None


def expect(got, want, what):
    if got != want:
        raise AssertionError(f"{what}: got {got!r}, not {want!r}")


class Patience:
    """Says when trying again has lasted too long."""

    def __init__(self):
        self.since = None

    def worked(self):
        self.since = None

    def failed(self, error):
        now = time.monotonic()
        self.since = self.since or now
        if now - self.since > PATIENCE:
            raise TimeoutError(f"nothing has worked for {PATIENCE} s: {error!r}")
