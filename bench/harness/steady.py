"""python -m harness.steady PORT PATH RATE CONNECTIONS SECONDS: requests at a fixed rate, one JSON line of figures.

A request is due every 1/RATE s whether or not earlier ones were answered, and its latency counts from when it was due: if a proxy
stalls, all requests that wait meanwhile count. (wrk has no rate; h2load counts from when it sends, and its clients send at the same moments.)
"""

import array, collections, gc, json, select, socket, sys, time
from pathlib import Path

from .load import percentiles


def main():
    port, path, rate, count, seconds = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
    gc.disable()
    Path("/proc/self/timerslack_ns").write_text("1000")
    request = f"GET {path} HTTP/1.1\r\nHost: bench.example\r\n\r\n".encode()
    connections = [Connection(port, request) for _ in range(count)]
    lateness, latencies, failed = drive(connections, rate, seconds)
    late = percentiles(lateness)["p99_ms"]
    print(json.dumps({"requests": len(latencies), "failed": failed, "late_p99_ms": late, **percentiles(latencies)}))


class Connection:
    """A keep-alive connection, with the length of its responses, which must all be equal."""

    def __init__(self, port, request):
        self.request = request
        self.socket = socket.create_connection(("127.0.0.1", port), 5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self.more()
        head, _, body = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            sys.exit(f"answered {head.split(bytes([13]))[0]}")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        while len(body) < length:
            body += self.more()
        self.length = len(head) + 4 + length
        self.missing = 0
        self.due = 0.0
        self.socket.setblocking(False)

    def more(self):
        data = self.socket.recv(65536)
        if not data:
            sys.exit("the connection was closed")
        return data

    def send(self, due):
        self.due, self.missing = due, self.length
        self.socket.send(self.request)  # much smaller than an empty socket buffer


def drive(connections, rate, seconds):
    """The lateness of our own sends, latencies from when each request was due, and the number of failures."""
    clock, interval, total = time.perf_counter, 1 / rate, rate * seconds
    poll = select.epoll()
    by_number = {}
    for connection in connections:
        by_number[connection.socket.fileno()] = connection
        poll.register(connection.socket.fileno(), select.EPOLLIN)
    idle = collections.deque(connections)
    lateness, latencies, failed, sent, answered = array.array("d"), array.array("d"), 0, 0, 0
    start = clock() + 0.01
    end = start + seconds + 5
    while answered + failed < total:
        now = clock()
        if now > end or not by_number:
            failed = total - answered
            break
        while sent < total and idle and now >= start + sent * interval:
            connection, due = idle.popleft(), start + sent * interval
            lateness.append(now - due)
            connection.send(due)
            sent += 1
            now = clock()
        # epoll has a resolution of milliseconds, select of microseconds.
        wait = max(start + sent * interval - now, 0) if sent < total and idle else end - now
        if not select.select([poll.fileno()], [], [], max(wait, 0))[0]:
            continue
        for number, _ in poll.poll(0):
            connection = by_number[number]
            try:
                data = connection.socket.recv(65536)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            connection.missing -= len(data)
            if not data or connection.missing < 0 or data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 200"):
                failed += 1
                poll.unregister(number)
                del by_number[number]
                connection.socket.close()
            elif connection.missing == 0:
                latencies.append(clock() - connection.due)
                answered += 1
                idle.append(connection)
    return lateness, latencies, failed


if __name__ == "__main__":
    main()
