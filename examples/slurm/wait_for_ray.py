"""wait_for_ray.py NODE ...: wait until these nodes have joined Ray, then print what Ray has.

Environment: HEAD_ADDRESS and RAY_PORT, where Ray's head is; JOIN_S, seconds to wait. After that the
exit code is 1, and the missing nodes are named.
"""

import logging
import os
import socket
import sys
import time

import ray


def joined() -> dict[str, float]:
    """Node name -> number of GPUs, of every node that is alive."""
    return {
        node["NodeName"]: node["Resources"].get("GPU", 0.0) for node in ray.nodes() if node["Alive"]
    }


def connect(host: str, port: int, deadline: float) -> None:
    """Join Ray as soon as its head is up.

    Args:
        deadline: in seconds of `time.monotonic`.

    Raises:
        OSError: the head is not up at `deadline`.
    """
    while True:
        try:
            # Without a head this fails sooner than ray.init does.
            socket.create_connection((host, port), timeout=1.0).close()
            ray.init(f"{host}:{port}", logging_level=logging.ERROR)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def main(nodes: list[str]) -> int:
    """Wait; returns the exit code."""
    host, port = os.environ["HEAD_ADDRESS"], int(os.environ["RAY_PORT"])
    patience_s = os.environ["JOIN_S"]
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
