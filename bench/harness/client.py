"""One HTTP/1.1 connection, plain or over TLS."""

import socket, ssl

TIMEOUT = 10


class Client:
    """A connection, with a TLS context over TLS, whose state it can drop while the TCP connection stays open."""

    def __init__(self, port, context=None, source=None):
        address = (source, 0) if source else None
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT, source_address=address)
        self.tls = None
        if context:
            self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="bench.example")
            self.step(self.tls.do_handshake)

    def get(self, path, fields=""):
        """Status, head as text, body. The response must have a Content-Length."""
        self.write(f"GET {path} HTTP/1.1\r\nHost: bench.example\r\n{fields}\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self.read()
        head, _, body = answer.partition(b"\r\n\r\n")
        head = head.decode("latin-1")
        length = next(int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:"))
        while len(body) < length:
            body += self.read()
        return int(head.split(" ", 2)[1]), head, body

    def forget_tls(self):
        """Frees this end's TLS state without sending anything."""
        self.tls = self.incoming = self.outgoing = None

    def is_closed(self):
        """Whether the other end has closed it; unread bytes do not count."""
        self.socket.setblocking(False)
        try:
            while self.socket.recv(4096):
                pass
            return True
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self):
        self.socket.close()

    def write(self, data):
        if self.tls:
            self.step(lambda: self.tls.write(data))
        else:
            self.socket.sendall(data)

    def read(self):
        data = self.step(lambda: self.tls.read(65536)) if self.tls else self.socket.recv(65536)
        if not data:
            raise ConnectionError("closed before the answer's end")
        return data

    def step(self, action):
        while True:
            try:
                done = action()
                self.flush()
                return done
            except ssl.SSLWantReadError:
                self.flush()
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("closed in the midst of TLS")
            self.incoming.write(data)

    def flush(self):
        if self.outgoing.pending:
            self.socket.sendall(self.outgoing.read())


def client_context():
    """The certificates are the bench's own and are not verified."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
