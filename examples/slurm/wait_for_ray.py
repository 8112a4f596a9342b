"""wait_for_ray.py NODE ...: wait until these nodes have joined the Ray of this node, and say what it has.

Environment: HEAD_ADDRESS and RAY_PORT, where it is; JOIN_S, seconds to wait. Exits with 1 and the missing nodes' names
after that.
"""

import logging
import os
import socket
import sys
import time

import ray


def joined() -> dict[str, float]:
    """Name -> number of GPUs of every node that is alive."""
    return {
        node["NodeName"]: node["Resources"].get("GPU", 0.0) for node in ray.nodes() if node["Alive"]
    }


def connect(host: str, port: int, deadline: float) -> None:
    """Join as soon as the head is up.

    Raises:
        OSError: it is not until `deadline`.
    """
    while True:
        try:
            socket.create_connection(
                (host, port), timeout=1.0
            ).close()  # fails sooner than Ray does
            ray.init(f"{host}:{port}", logging_level=logging.ERROR)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def main(nodes: list[str]) -> int:
    """Wait; returns the exit code."""
    host, port, patience_s = (
        os.environ["HEAD_ADDRESS"],
        int(os.environ["RAY_PORT"]),
        os.environ["JOIN_S"],
    )
    deadline = time.monotonic() + float(patience_s)
    try:
        connect(host, port, deadline)
    except OSError as error:
        print(f"error: no Ray at {host}:{port} after {patience_s} s: {error}", file=sys.stderr)
        return 1
    while missing := [node for node in nodes if node not in joined()]:
        if time.monotonic() > deadline:
            print(f"error: not in Ray after {patience_s} s: {' '.join(missing)}", file=sys.stderr)
            return 1
        time.sleep(0.5)
    print(f"Ray: {len(nodes)} nodes with {sum(joined().values()):.0f} GPUs for the fleet")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
