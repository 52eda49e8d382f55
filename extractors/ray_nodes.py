"""The connection to a Ray cluster, and what Ray says of its nodes."""

import io
import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout

import ray
from ray.exceptions import RayTaskError

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0

Place = tuple[str, int]
"""A node's id, and the number of the worker on it."""


@contextmanager
def connection(address: str) -> Iterator[None]:
    """Connect this process to the cluster at an address, or start one on this machine that ends with the connection.

    Args:
        address: "host:port", "auto" or "local".

    Raises:
        ValueError: this process uses Ray already, or the cluster cannot be reached.
    """
    if ray.is_initialized():
        raise ValueError(
            "this program uses Ray already, and extraction needs a connection of its own: call ray.shutdown() before, "
            "or extract in another process"
        )
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(_Log()))  # Ray prints there what happens to its nodes
        stack.callback(ray.shutdown)
        _connect(address)
        yield


def device_of_cluster(device: str) -> str:
    """Return "cuda" or "cpu" for a device that may be "auto".

    Raises:
        ValueError: the cluster lacks the device.
    """
    has_gpu = ray.cluster_resources().get("GPU", 0) >= 1
    if device == "cuda" and not has_gpu:
        raise ValueError("the Ray cluster has no GPU: use --device cpu, or start its nodes with --num-gpus")
    return "cuda" if has_gpu and device != "cpu" else "cpu"


def places(device: str) -> Iterator[tuple[Place, str, int, int]]:
    """Where workers can be: the place, the node's address, and the cores and GPUs of a worker there."""
    for node in ray.nodes():
        num_cores, num_gpus = (int(node["Resources"].get(kind, 0)) for kind in ("CPU", "GPU"))
        num_workers = num_gpus if device == "cuda" else min(num_cores, 1)
        for number in range(num_workers if node["Alive"] else 0):
            yield (node["NodeID"], number), node["NodeManagerAddress"], num_cores // num_workers, device == "cuda"


def how_it_died(node_id: str, host: str) -> str:
    """Say whether a worker died alone or with its node, which has this id and address."""
    lives = any(node["Alive"] and node["NodeID"] == node_id for node in ray.nodes())
    return f"by the end of its process on node {host}" if lives else f"with its node {host}"


def one_line(error: BaseException) -> str:
    """Return what an error says, without a worker's traceback."""
    cause = getattr(error, "cause", None) if isinstance(error, RayTaskError) else error
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(cause)).split()) or type(cause).__name__


class _Log(io.TextIOBase):
    """A text file that is this program's log."""

    def write(self, text: str) -> int:
        if text.strip():
            logger.debug("%s", text.strip())
        return len(text)


def _connect(address: str) -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no telemetry
    host, _, port = address.rpartition(":")
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        if host:  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S).close()
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"there is no Ray cluster to use at {address} ({one_line(error)}); --ray without an address starts one on "
            "this machine"
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray has set its own
