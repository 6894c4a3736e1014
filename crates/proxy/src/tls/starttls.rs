//! Asks a server for TLS in the server's own protocol.

use crate::io::Stream;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// PostgreSQL's SSLRequest: its length, and its code.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Why a server speaks no TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum NoTls {
    #[error("PostgreSQL offers no TLS: set ssl = on")]
    NotOffered,
    #[error("the answer is not PostgreSQL's")]
    NotPostgres,
}

/// Sends an SSLRequest, and returns once the server is ready for TLS. No byte after its answer is read: what comes before TLS is not
/// the server's word.
///
/// # Errors
/// The connection failed, or there is no TLS.
pub(super) async fn ask_postgres(stream: &mut Stream) -> io::Result<()> {
    stream.write_all(&SSL_REQUEST).await?;
    stream.flush().await?;
    match stream.read_u8().await? {
        b'S' => Ok(()),
        b'N' => Err(io::Error::other(NoTls::NotOffered)),
        _ => Err(io::Error::other(NoTls::NotPostgres)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::testing::{self, run};
    use std::io::{Read, Write};

    /// What comes of this answer to the request.
    fn after(answer: &'static [u8]) -> Result<(), String> {
        let mut result = Ok(());
        run(async {
            let (near, mut server) = testing::pair();
            let mut stream = Stream::Tcp(near);
            let serving = tokio::task::spawn_blocking(move || {
                let mut request = [0; 8];
                server.read_exact(&mut request).unwrap();
                assert_eq!(request, SSL_REQUEST);
                server.write_all(answer).unwrap();
                server
            });
            let asked = ask_postgres(&mut stream).await;
            let _open = serving.await.unwrap();
            result = asked.map_err(|error| error.to_string());
        });
        result
    }

    #[test]
    fn postgres_says_yes_or_there_is_no_connection() {
        assert_eq!(after(b"S"), Ok(()));
        let none = after(b"N").unwrap_err();
        assert!(none.contains("offers no TLS"), "{none}");
        for other in [&b"E\0\0\0\x08"[..], b"HTTP/1.1 400", b"\x15\x03\x03"] {
            let why = after(other).unwrap_err();
            assert!(why.contains("not PostgreSQL's"), "{why}");
        }
    }

    #[test]
    fn what_follows_the_answer_is_left_for_tls_to_refuse() {
        run(async {
            let (near, mut server) = testing::pair();
            let mut stream = Stream::Tcp(near);
            server.write_all(b"Sinjected").unwrap();
            ask_postgres(&mut stream).await.unwrap();
            let mut rest = [0; 8];
            stream.read_exact(&mut rest).await.unwrap();
            assert_eq!(&rest, b"injected");
        });
    }
}
