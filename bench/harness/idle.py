"""python -m harness.idle PORT PATH COUNT tls|plain: opens COUNT connections with one request on each, prints a line, keeps
them open until it reads a line, and prints how many the proxy has closed meanwhile.
"""

import sys

from .client import Client, client_context


def main():
    port, path, count, tls = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4] == "tls"
    context = client_context() if tls else None
    held = [opened(port, path, number, context) for number in range(count)]
    print(count, flush=True)
    sys.stdin.readline()
    print(sum(client.is_closed() for client in held))


def opened(port, path, number, context):
    client = Client(port, context, source=f"127.0.0.{2 + number % 8}")
    status, _, _ = client.get(path)
    if status != 200:
        sys.exit(f"answered {status} on connection {number}")
    client.forget_tls()
    return client


if __name__ == "__main__":
    main()
