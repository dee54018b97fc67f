"""A server for a test: it runs while a `with` lasts, in a network namespace without anything but loopback.

usage: served.py [--open] [--needs FOLDER] SERVER ARGUMENT... -- COMMAND...
Starts `SERVER ARGUMENT...`, waits for the address that it prints, and runs COMMAND with {base} replaced by it. Exits with COMMAND's
code, or 1 when the server did not end well. --open: in the network namespace as it is. --needs: exits with 77 where FOLDER has no
packages or there is no node."""
import os
import re
import shutil
import subprocess
import sys
import threading


def must_have(folder):
    """Exits with 77 where packages were not installed."""
    if not os.path.isdir(os.path.join(folder, "node_modules")) or not shutil.which("node"):
        print(f"skipped: node is not there, or no packages are in {folder}")
        sys.exit(77)


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
    apart = True
    while arguments[0].startswith("--"):
        if arguments.pop(0) == "--open":
            apart = False
        else:
            must_have(arguments.pop(0))
    if apart:
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
