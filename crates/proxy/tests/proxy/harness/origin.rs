//! A server that plays what a test wants of it.

use super::*;

/// A request as a server reads it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) line: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        fields
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| &**value)
    }

    pub(crate) fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap()
    }
}

/// A server that handles each connection with a function, on a thread of its own.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    pub(crate) accepted: Arc<AtomicUsize>,
    pub(crate) requests: Arc<Mutex<Vec<Request>>>,
}

impl Origin {
    /// A server that answers every request with its name and what was asked.
    pub(crate) fn start(name: &'static str) -> Self {
        Self::with(move |connection| {
            while let Some(request) = connection.request() {
                let text = format!("{name} {}", request.line);
                if !connection.answer(&text) {
                    return;
                }
            }
        })
    }

    /// A server that answers every request with `done`, one for `/held` once the test waits at the barrier too.
    pub(crate) fn holding() -> (Self, Arc<Barrier>) {
        let held = Arc::new(Barrier::new(2));
        let release = Arc::clone(&held);
        let origin = Self::with(move |connection| {
            while let Some(request) = connection.request() {
                if request.path() == "/held" {
                    release.wait();
                }
                connection.answer("done");
            }
        });
        (origin, held)
    }

    /// A server that does this with each connection.
    pub(crate) fn with(handle: impl Fn(&mut Accepted) + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), handle)
    }

    pub(crate) fn on(
        listener: TcpListener,
        handle: impl Fn(&mut Accepted) + Send + Sync + 'static,
    ) -> Self {
        let origin = Self {
            address: listener.local_addr().unwrap(),
            accepted: Arc::default(),
            requests: Arc::default(),
        };
        let (accepted, requests) = (Arc::clone(&origin.accepted), Arc::clone(&origin.requests));
        let handle = Arc::new(handle);
        // The thread ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                accepted.fetch_add(1, Ordering::SeqCst);
                let (handle, requests) = (Arc::clone(&handle), Arc::clone(&requests));
                std::thread::spawn(move || {
                    handle(&mut Accepted {
                        client: Client::of(stream),
                        requests,
                    });
                });
            }
        });
        origin
    }

    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

/// A connection as a server has it.
pub(crate) struct Accepted {
    pub(crate) client: Client,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Accepted {
    /// The next request's head; `None` at the end.
    pub(crate) fn head(&mut self) -> Option<Request> {
        if self.client.is_closed() {
            return None;
        }
        let line = self.client.line();
        let mut fields = Vec::new();
        loop {
            let line = self.client.line();
            match line.split_once(": ") {
                Some((name, value)) => fields.push((name.into(), value.into())),
                None => break,
            }
        }
        Some(Request {
            line,
            fields,
            body: Vec::new(),
        })
    }

    /// The next request with its body.
    pub(crate) fn request(&mut self) -> Option<Request> {
        let mut request = self.head()?;
        self.body(&mut request);
        self.requests.lock().unwrap().push(request.clone());
        Some(request)
    }

    pub(crate) fn body(&mut self, request: &mut Request) {
        let length = request
            .field("Content-Length")
            .map(|length| length.parse().unwrap());
        request.body = match (request.field("Transfer-Encoding"), length) {
            (Some(_), _) => self.client.chunks(),
            (None, Some(length)) => self.client.exactly(length),
            (None, None) => Vec::new(),
        };
    }

    pub(crate) fn answer(&mut self, text: &str) -> bool {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", text.len());
        self.say(&format!("{head}{text}"))
    }

    pub(crate) fn say(&mut self, text: &str) -> bool {
        self.client.stream.write_all(text.as_bytes()).is_ok()
    }
}
