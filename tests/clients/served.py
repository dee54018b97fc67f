"""A server for a test: it runs while a `with` lasts, in a network namespace without anything but loopback.

usage: served.py [--open] SERVER ARGUMENT... -- COMMAND...
Starts `SERVER ARGUMENT...`, waits for the address that it prints, and runs COMMAND with {base} replaced by it. Exits with COMMAND's
code, or 1 when the server did not end well. --open: in the network namespace as it is."""
import os
import re
import subprocess
import sys
import threading


def alone():
    """Starts this program again where only loopback is; returns there. Exits with 77 where that cannot be had."""
    if os.environ.get("MQ_CLIENTS_ALONE"):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    for flags in ("-n", "-rn"):
        try:
            made = subprocess.run(["unshare", flags, "ip", "link", "set", "lo", "up"], capture_output=True).returncode == 0
        except FileNotFoundError:
            break
        if made:
            os.execvpe("unshare", ["unshare", flags, sys.executable, *sys.argv], {**os.environ, "MQ_CLIENTS_ALONE": "1"})
    print("skipped: no network namespace can be made here")
    sys.exit(77)


class Server:
    def __init__(self, command):
        self.log = []
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        self.port = None
        for line in self.process.stdout:
            self.log.append(line)
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                break
        if not self.port:
            raise RuntimeError(f"{command[0]} printed no address: {''.join(self.log)}")
        self.base = f"http://127.0.0.1:{self.port}"
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.log.append(line)

    def stop(self):
        """Its exit code."""
        self.process.terminate()
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.reader.join(10)
        return code


def main():
    arguments = sys.argv[1:]
    if arguments[0] == "--open":
        arguments = arguments[1:]
    else:
        alone()
    cut = arguments.index("--")
    server = Server(arguments[:cut])
    command = [word.replace("{base}", server.base) for word in arguments[cut + 1 :]]
    code = subprocess.run(command).returncode
    left = server.stop()
    if code or left:
        print("".join(server.log[-40:]), end="")
        print(f"the server ended with {left}")
    return code or bool(left)


if __name__ == "__main__":
    sys.exit(main())
