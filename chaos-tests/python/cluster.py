"""A cluster of processes on the loopback interface: three coordinators and three shard nodes, with their data in a
temporary directory."""

import os
import random
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

from qdrant_client import QdrantClient

COORDINATORS, NODES = 3, 3
READY_SECONDS = 60
STOP_SECONDS = 20
# Below the ports that the system gives to outgoing connections.
PORTS = range(15_000, 32_000)


def free_ports(count):
    found = []
    start = random.SystemRandom().randrange(len(PORTS))
    for step in range(len(PORTS)):
        port = PORTS[(start + step) % len(PORTS)]
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError(f"there are no {count} free ports in {PORTS}")


class Member:
    """One process, and its log in a file."""

    def __init__(self, binary, directory, role, name, port, arguments):
        self.name, self.url = name, f"http://127.0.0.1:{port}"
        self._log_path = os.path.join(directory, f"{name}.log")
        variables = {key: value for key, value in os.environ.items() if not key.startswith("VICINAL_")}
        with open(self._log_path, "w") as log:
            self.process = subprocess.Popen(
                [binary, role, "--id", name, "--listen", f"127.0.0.1:{port}", "--advertise", self.url,
                 "--data-dir", os.path.join(directory, name), *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=variables,
            )

    def log(self):
        with open(self._log_path) as log:
            return log.read().splitlines()

    def is_ready(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.name} ended with status {self.process.returncode}:\n" + "\n".join(self.log()))
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False


class Cluster:
    def __init__(self, binary):
        self._directory = tempfile.TemporaryDirectory(prefix="vicinal-acceptance-")
        ports = free_ports(COORDINATORS + NODES)
        urls = [f"http://127.0.0.1:{port}" for port in ports[:COORDINATORS]]
        self._members = []
        try:
            for place, port in enumerate(ports[:COORDINATORS]):
                arguments = ["--bootstrap"] if place == 0 else []
                arguments += ["--join", ",".join(url for url in urls if url != urls[place])]
                self._start(binary, "coordinator", f"c{place + 1}", port, arguments)
            for place, port in enumerate(ports[COORDINATORS:]):
                self._start(binary, "shard-node", f"n{place + 1}", port, ["--coordinators", ",".join(urls)])
            self._wait_until_ready()
        except BaseException:
            self._stop()
            raise
        # The last coordinator: most likely not the leader of the metadata.
        self.client = QdrantClient(url=urls[-1], timeout=60)

    def _start(self, binary, role, name, port, arguments):
        self._members.append(Member(binary, self._directory.name, role, name, port, arguments))

    def _wait_until_ready(self):
        until = time.monotonic() + READY_SECONDS
        while not all([member.is_ready() for member in self._members]):
            if time.monotonic() > until:
                logs = [line for member in self._members for line in [f"--- {member.name}", *member.log()[-20:]]]
                raise RuntimeError("the cluster is not ready:\n" + "\n".join(logs))
            time.sleep(0.1)

    def complaints(self):
        """Log lines of errors. Warnings are part of founding a cluster: who is first waits for the others."""
        return [f"{member.name}: {line}" for member in self._members for line in member.log() if " ERROR " in line]

    def _stop(self):
        """The statuses of those that did not end as they should. Nodes go first: they hand over what they lead."""
        for member in reversed(self._members):
            if member.process.poll() is None:
                member.process.send_signal(signal.SIGTERM)
        statuses = {}
        until = time.monotonic() + STOP_SECONDS
        for member in self._members:
            try:
                statuses[member.name] = member.process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                member.process.kill()
                statuses[member.name] = member.process.wait()
        self._directory.cleanup()
        return {name: status for name, status in statuses.items() if status != 0}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.client.close()
        failed = self._stop()
        if failed and exception[0] is None:
            raise RuntimeError(f"members of the cluster ended with {failed}")
