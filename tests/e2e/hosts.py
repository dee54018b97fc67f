"""Two hosts on one machine: network namespaces joined by a wire whose rate can be limited and which can be pulled. Needs root and `ip`
(iproute2), for rates also `tc`. Python's standard library only.

    with Hosts() as hosts:          # raises Unavailable where this is not permitted
        hosts.enter("a", command)   # a command line that runs on host a
        hosts.rate("1gbit")
        hosts.pull(); hosts.plug()
Each host has a loopback of its own, and its end of the wire at hosts.address["a" or "b"]. `dial` and `listen` are for sockets within a host.
"""
import ctypes
import os
import shutil
import socket
import subprocess

CLONE_NEWNET = 0x40000000


class Unavailable(Exception):
    pass


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(f"{' '.join(map(str, command))}: {done.stderr.strip()}")


class Hosts:
    def __init__(self):
        self.names = {end: f"mq{os.getpid()}{end}" for end in "ab"}
        self.address = {"a": "10.231.7.1", "b": "10.231.7.2"}

    def __enter__(self):
        if os.geteuid() != 0 or not shutil.which("ip"):
            raise Unavailable("namespaces need root and the program ip")
        try:
            self.make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def make(self):
        for name in self.names.values():
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "link", "add", "wire", "netns", self.names["a"], "type", "veth", "peer", "name", "wire", "netns", self.names["b"])
        for end, name in self.names.items():
            run("ip", "-n", name, "address", "add", self.address[end] + "/30", "dev", "wire")
        self.plug()

    def __exit__(self, *_):
        for name in self.names.values():  # the wire goes with them
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def enter(self, end, command):
        return ["ip", "netns", "exec", self.names[end], *command]

    def rate(self, rate):
        """ "1gbit"; None: as fast as it goes. Both ways."""
        for name in self.names.values():
            subprocess.run(["tc", "-n", name, "qdisc", "del", "dev", "wire", "root"], capture_output=True)
            if rate:
                # The burst holds a segment as the kernel cuts it last; the queue is 20 ms long.
                run("tc", "-n", name, "qdisc", "add", "dev", "wire", "root", "tbf", "rate", rate, "burst", "256kb", "latency", "20ms")

    def receive_on(self, cores):
        """{"a": core, "b": core}: who receives does the work of it. A veth pair has it done by the sender's core, which no cable does."""
        for end, core in cores.items():
            run(*self.enter(end, ["sh", "-c", f"echo {1 << core:x} > /sys/class/net/wire/queues/rx-0/rps_cpus"]))

    def pull(self):
        run("ip", "-n", self.names["a"], "link", "set", "wire", "down")

    def plug(self):
        for name in self.names.values():
            run("ip", "-n", name, "link", "set", "wire", "up")

    def socket(self, end):
        """A socket of that host: it stays in the namespace in which it was made."""
        libc = ctypes.CDLL(None, use_errno=True)
        own, other = os.open("/proc/thread-self/ns/net", os.O_RDONLY), os.open(f"/run/netns/{self.names[end]}", os.O_RDONLY)
        try:
            if libc.setns(other, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            try:
                return socket.socket()
            finally:
                if libc.setns(own, CLONE_NEWNET):
                    os.abort()  # this thread would go on in the wrong place
        finally:
            os.close(own)
            os.close(other)

    def dial(self, end, address, timeout):
        """A connection from that host."""
        s = self.socket(end)
        s.settimeout(timeout)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            s.connect(address)
        except OSError:
            s.close()
            raise
        return s

    def listen(self, end, address):
        s = self.socket(end)
        s.bind(address)
        s.listen()
        return s
