"""A `vicinal dev` process on a free port, with its data in a temporary directory."""

import os
import re
import signal
import subprocess
import tempfile
import threading
import time

from qdrant_client import QdrantClient

READY_SECONDS = 30
STOP_SECONDS = 20


class Server:
    def __init__(self, binary):
        self._dir = tempfile.TemporaryDirectory(prefix="vicinal-acceptance-")
        variables = {name: value for name, value in os.environ.items() if not name.startswith("VICINAL_")}
        self._process = subprocess.Popen(
            [binary, "dev", "--data-dir", self._dir.name, "--listen", "127.0.0.1:0"],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=variables,
        )
        self._log = []
        threading.Thread(target=self._follow, daemon=True).start()
        self.client = QdrantClient(url=self._wait_for_address(), timeout=60)

    def _follow(self):
        for line in self._process.stderr:
            self._log.append(line.rstrip("\n"))

    def _wait_for_address(self):
        until = time.monotonic() + READY_SECONDS
        while time.monotonic() < until:
            for line in list(self._log):
                found = re.search(r"http://[0-9.:]+[0-9]", line)
                if found:
                    return found.group(0)
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        raise RuntimeError("the server did not start:\n" + "\n".join(self._log))

    def complaints(self):
        return [line for line in self._log if " WARN " in line or " ERROR " in line]

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.client.close()
        self._process.send_signal(signal.SIGINT)
        try:
            status = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._dir.cleanup()
        if status != 0 and exception[0] is None:
            raise RuntimeError(f"the server ended with status {status}:\n" + "\n".join(self._log))
