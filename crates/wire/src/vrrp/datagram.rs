//! What keepers and relays send each other over UDP.
//!
//! ```text
//! | 0x47 0x56 ("GV") | 1 | kind | rest |
//!
//! kind 1, ping:     number, 8 bytes
//! kind 2, pong:     the same number
//! kind 3, message:  a sealed message of the sender itself, as in an IPv4 packet from it to the group
//! kind 4, relayed:  the IPv4 address of a message's sender, then the message
//! kind 5, wide:     a sealed message as over IPv6, which names its sender; relays forward it as it is
//! ```
//!
//! Only the messages are sealed, and they are sealed for their sender's address: a relay can neither change nor invent one.

use gaiola_model::vrrp::Ping;
use std::net::Ipv4Addr;

/// The longest datagram: a message with 255 addresses of IPv4, or 99 of IPv6, and its seal. No site has more balancers.
pub const LONGEST: usize = 1700;

const MAGIC: [u8; 3] = [0x47, 0x56, 1];
const PING: u8 = 1;
const PONG: u8 = 2;
const MESSAGE: u8 = 3;
const RELAYED: u8 = 4;
const WIDE: u8 = 5;

/// One datagram. Messages stay encoded: a relay cannot read them, and need not.
///
/// ```
/// use gaiola_model::vrrp::Ping;
/// use gaiola_wire::vrrp::Datagram;
///
/// let bytes = Datagram::Ping(Ping(7)).encode();
/// assert_eq!(Datagram::decode(&bytes), Some(Datagram::Ping(Ping(7))));
/// assert_eq!(Datagram::decode(b"anything else"), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// A keeper asks a relay for a [`Pong`](Self::Pong).
    Ping(Ping),
    /// The relay's answer.
    Pong(Ping),
    /// A keeper's message, to another keeper or to a relay.
    Message(&'a [u8]),
    /// A keeper's message, forwarded by a relay.
    Relayed {
        /// The keeper, as the relay received it. The seal proves it.
        from: Ipv4Addr,
        /// The message.
        message: &'a [u8],
    },
    /// A keeper's message that names its sender in its seal, whoever it comes from.
    Wide(&'a [u8]),
}

impl<'a> Datagram<'a> {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        match self {
            Self::Ping(ping) => {
                bytes.push(PING);
                bytes.extend(ping.0.to_be_bytes());
            }
            Self::Pong(ping) => {
                bytes.push(PONG);
                bytes.extend(ping.0.to_be_bytes());
            }
            Self::Message(message) => {
                bytes.push(MESSAGE);
                bytes.extend(*message);
            }
            Self::Relayed { from, message } => {
                bytes.push(RELAYED);
                bytes.extend(from.octets());
                bytes.extend(*message);
            }
            Self::Wide(message) => {
                bytes.push(WIDE);
                bytes.extend(*message);
            }
        }
        bytes
    }

    /// Decodes a datagram; `None`: it is none, or too long.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&MAGIC)?;
        let (kind, rest) = rest.split_first()?;
        if bytes.len() > LONGEST {
            return None;
        }
        let ping = || Some(Ping(u64::from_be_bytes(rest.try_into().ok()?)));
        match *kind {
            PING => ping().map(Self::Ping),
            PONG => ping().map(Self::Pong),
            MESSAGE => Some(Self::Message(rest)),
            WIDE => Some(Self::Wide(rest)),
            RELAYED => {
                let (from, message) = rest.split_first_chunk::<4>()?;
                let from = (*from).into();
                Some(Self::Relayed { from, message })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decoding_reverses_encoding(
            kind in 0..5, number: u64, from: u32, message in prop::collection::vec(any::<u8>(), 0..1000),
        ) {
            let datagram = match kind {
                0 => Datagram::Ping(Ping(number)),
                1 => Datagram::Pong(Ping(number)),
                2 => Datagram::Message(&message),
                3 => Datagram::Wide(&message),
                _ => Datagram::Relayed { from: from.into(), message: &message },
            };
            let bytes = datagram.encode();
            prop_assert_eq!(Datagram::decode(&bytes), Some(datagram));
        }

        #[test]
        fn what_is_read_is_written_the_same(bytes: Vec<u8>) {
            for bytes in [bytes.clone(), [&MAGIC[..], &bytes].concat()] {
                if let Some(read) = Datagram::decode(&bytes) {
                    prop_assert_eq!(read.encode(), bytes);
                }
            }
        }
    }

    #[test]
    fn the_longest_message_fits_and_nothing_longer_is_read() {
        let longest = 8 + 255 * 4 + 40;
        let mut bytes = Datagram::Relayed {
            from: [10, 77, 1, 1].into(),
            message: &vec![0; longest],
        }
        .encode();
        assert!(Datagram::decode(&bytes).is_some());
        bytes.resize(LONGEST + 1, 0);
        assert_eq!(Datagram::decode(&bytes), None);
    }
}
