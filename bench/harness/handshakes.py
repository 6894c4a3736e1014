"""python -m harness.handshakes PORT PATH CLIENTS SECONDS: new TLS connections, one request on each; one JSON line of figures.

Each handshake must be a full one: a resumed session fails the measurement. (wrk keeps its connections; `openssl s_time` counts
whole seconds of the wall clock, so that one second may be none.)
"""

import json, multiprocessing, sys, time

from .client import Client, client_context
from .load import percentiles


def main():
    port, path, clients, seconds = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    with multiprocessing.Pool(clients) as pool:
        results = pool.starmap(drive, [(port, path, time.monotonic() + seconds)] * clients)
    latencies = [latency for each in results for latency in each]
    print(json.dumps({"requests": len(latencies), "failed": 0, **percentiles(latencies)}))


def drive(port, path, until):
    """The seconds that each connection of one client took, from connecting to the end of the response."""
    context, latencies = client_context(), []
    while (begin := time.monotonic()) < until:
        client = Client(port, context)
        status, _, _ = client.get(path)
        if status != 200 or client.tls.session_reused:
            raise RuntimeError(f"answered {status}, session resumed: {client.tls.session_reused}")
        client.close()
        latencies.append(time.monotonic() - begin)
    return latencies


if __name__ == "__main__":
    main()
