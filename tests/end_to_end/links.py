"""Links that lose packets: in network namespaces for root, or a proxy that falls silent for all."""

import asyncio
import fcntl
import os
import random
import selectors
import shutil
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

SERVER_IP, CLIENT_IP = "10.213.7.1", "10.213.7.2"
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


def sh(line: str) -> None:
    """Run a command; skip the test with its reason where the machine does not allow it."""
    done = subprocess.run(line.split(), capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{line}: {done.stderr.strip()}")


@contextmanager
def namespaces() -> Iterator[tuple[str, str]]:
    """Make two empty network namespaces."""
    if os.getuid() != 0:
        pytest.skip("network namespaces need root")
    if not (shutil.which("ip") and shutil.which("tc")):
        pytest.skip("network namespaces need iproute2 (ip and tc)")
    names = f"mphe-server-{os.getpid()}", f"mphe-client-{os.getpid()}"
    with ExitStack() as stack:
        for name in names:
            sh(f"ip netns add {name}")
            stack.callback(subprocess.run, ["ip", "netns", "del", name], check=False)
            sh(f"ip -n {name} link set lo up")
        yield names


class NetemLink:
    """A pair of virtual Ethernet devices whose queues lose packets in the kernel."""

    @contextmanager
    def between(self, server: str, client: str) -> Iterator["NetemLink"]:
        """Connect two namespaces."""
        self._ends = (server, "veth-s"), (client, "veth-c")
        sh(f"ip link add veth-s netns {server} type veth peer name veth-c netns {client}")
        for (space, device), address in zip(self._ends, (SERVER_IP, CLIENT_IP), strict=True):
            sh(f"ip -n {space} addr add {address}/24 dev {device}")
            sh(f"ip -n {space} link set {device} up")
            sh(f"tc -n {space} qdisc add dev {device} root netem loss 0%")
        yield self

    def lose(self, share: float) -> None:
        """Lose this share of all packets, both ways, from now on."""
        for space, device in self._ends:
            sh(f"tc -n {space} qdisc change dev {device} root netem loss {100 * share:g}%")


class TunLink:
    """Two TUN devices with this process between them, for kernels without netem."""

    def __init__(self, seed: int = 1) -> None:
        """Lose nothing yet."""
        self._random = random.Random(seed)
        self._share = 0.0
        self.passed = self.lost = 0

    @contextmanager
    def between(self, server: str, client: str) -> Iterator["TunLink"]:
        """Connect two namespaces."""
        with ExitStack() as stack:
            files = [
                stack.enter_context(self._device(f"tun-s{os.getpid()}", server, SERVER_IP)),
                stack.enter_context(self._device(f"tun-c{os.getpid()}", client, CLIENT_IP)),
            ]
            over, wake = os.pipe()
            thread = threading.Thread(target=self._forward, args=(*files, over))
            thread.start()
            try:
                yield self
            finally:
                os.close(wake)
                thread.join()
                os.close(over)

    def lose(self, share: float) -> None:
        """Lose this share of all packets, both ways, from now on."""
        self._share = share

    @contextmanager
    def _device(self, name: str, space: str, address: str) -> Iterator[int]:
        try:
            file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        except OSError as error:
            pytest.skip(f"no TUN devices here: {error}")
        try:
            wanted = struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI)
            fcntl.ioctl(file, _TUNSETIFF, wanted)
            sh(f"ip link set {name} netns {space}")
            sh(f"ip -n {space} addr add {address}/24 dev {name}")
            sh(f"ip -n {space} link set {name} up")
            yield file
        finally:
            os.close(file)

    def _forward(self, one: int, other: int, over: int) -> None:
        with selectors.DefaultSelector() as selector:
            for file in (one, other, over):
                selector.register(file, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fd == over:
                        return
                    self._pass_on(key.fd, other if key.fd == one else one)

    def _pass_on(self, source: int, target: int) -> None:
        with suppress(OSError):  # as a full queue does, which loses the packet
            packet = os.read(source, 65536)
            if self._random.random() < self._share:
                self.lost += 1
            else:
                os.write(target, packet)
                self.passed += 1


class SilentProxy:
    """Passes on a TCP connection until it is told to swallow everything, without closing."""

    def __init__(self, target: int) -> None:
        """Stand before a port of this host, in a thread of its own."""
        self._target = target
        self._silent = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.port = 0

    def __enter__(self) -> "SilentProxy":
        """Listen on `port`."""
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        """End all connections."""
        self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join()

    def fall_silent(self) -> None:
        """Swallow what comes from now on, and let nobody in any more."""
        self._silent.set()

    def _run(self) -> None:
        self._main = self._loop.create_task(self._serve())
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._main)
        self._loop.close()

    async def _serve(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        writers = [writer]
        try:
            if self._silent.is_set():
                await asyncio.Event().wait()
            back, forth = await asyncio.open_connection("127.0.0.1", self._target)
            writers.append(forth)
            await asyncio.gather(self._copy(reader, forth), self._copy(back, writer))
        except OSError:
            pass
        finally:
            self._tasks.discard(task)
            for each in writers:
                each.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            if not self._silent.is_set():
                writer.write(data)
                await writer.drain()
        if self._silent.is_set():
            await asyncio.Event().wait()  # not even the end gets through
        writer.close()
