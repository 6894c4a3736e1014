//! ARP over Ethernet for IPv4 (RFC 826), above all the announcements that move a VIP (RFC 5227, section 3).

use std::net::Ipv4Addr;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The broadcast address.
    pub const BROADCAST: Self = Self([0xff; 6]);
    const UNKNOWN: Self = Self([0; 6]);
}

/// The kind of an ARP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// "Who has `target_ip`?"
    Request,
    /// "`sender_ip` is at `sender`."
    Reply,
}

/// One ARP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Its kind.
    pub operation: Operation,
    /// Ethernet address of the sender.
    pub sender: Mac,
    /// IPv4 address of the sender.
    pub sender_ip: Ipv4Addr,
    /// Ethernet address of the target; zeros in a request.
    pub target: Mac,
    /// IPv4 address of the target.
    pub target_ip: Ipv4Addr,
}

/// Length of an Ethernet frame with an ARP message, without padding.
pub const FRAME: usize = 42;

/// ARP's EtherType.
pub const ETHERTYPE: u16 = 0x0806;

/// Hardware and protocol type (Ethernet, IPv4), and the lengths of their addresses.
const KIND: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];

impl Arp {
    /// Two announcements that `vip` is at `mac`: a request and a reply, since some neighbours honour only one kind and
    /// some only the other.
    ///
    /// ```
    /// use gaiola_wire::arp::{Arp, Mac};
    ///
    /// let [request, reply] = Arp::announcements([10, 77, 0, 100].into(), Mac([2, 0, 0, 0, 0, 1]));
    /// assert!(request.announces() && reply.announces());
    /// assert_eq!(Arp::decode(&request.encode()), Some(request));
    /// ```
    pub fn announcements(vip: Ipv4Addr, mac: Mac) -> [Self; 2] {
        let request = Self {
            operation: Operation::Request,
            sender: mac,
            sender_ip: vip,
            target: Mac::UNKNOWN,
            target_ip: vip,
        };
        let reply = Self {
            operation: Operation::Reply,
            target: Mac::BROADCAST,
            ..request
        };
        [request, reply]
    }

    /// Whether it announces where `sender_ip` is without having been asked.
    pub fn announces(&self) -> bool {
        self.sender_ip == self.target_ip
    }

    /// The Ethernet frame that broadcasts it.
    pub fn encode(&self) -> [u8; FRAME] {
        let mut frame = [0; FRAME];
        frame[..6].copy_from_slice(&Mac::BROADCAST.0);
        frame[6..12].copy_from_slice(&self.sender.0);
        frame[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
        frame[14..20].copy_from_slice(&KIND);
        frame[21] = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        frame[22..28].copy_from_slice(&self.sender.0);
        frame[28..32].copy_from_slice(&self.sender_ip.octets());
        frame[32..38].copy_from_slice(&self.target.0);
        frame[38..42].copy_from_slice(&self.target_ip.octets());
        frame
    }

    /// Decodes an Ethernet frame; `None` if it carries no ARP message for IPv4. Padding after the message is ignored.
    pub fn decode(frame: &[u8]) -> Option<Self> {
        let frame: &[u8; FRAME] = frame.first_chunk()?;
        if frame[12..14] != ETHERTYPE.to_be_bytes() || frame[14..20] != KIND {
            return None;
        }
        let operation = match frame[20..22] {
            [0, 1] => Operation::Request,
            [0, 2] => Operation::Reply,
            _ => return None,
        };
        Some(Self {
            operation,
            sender: Mac(*frame[22..].first_chunk()?),
            sender_ip: Ipv4Addr::from(*frame[28..].first_chunk::<4>()?),
            target: Mac(*frame[32..].first_chunk()?),
            target_ip: Ipv4Addr::from(*frame[38..].first_chunk::<4>()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_announcement_goes_to_everyone_from_the_new_holder() {
        let mac = Mac([2, 0, 0, 0, 0, 7]);
        for arp in Arp::announcements(Ipv4Addr::new(10, 77, 0, 100), mac) {
            let frame = arp.encode();
            assert_eq!(frame[..6], [0xff; 6]);
            assert_eq!(frame[6..12], mac.0);
            assert_eq!(frame[28..32], frame[38..42]);
        }
    }

    proptest! {
        #[test]
        fn decode_undoes_encode(sender: [u8; 6], sender_ip: [u8; 4], target: [u8; 6], target_ip: [u8; 4], ask: bool) {
            let arp = Arp {
                operation: if ask { Operation::Request } else { Operation::Reply },
                sender: Mac(sender),
                sender_ip: sender_ip.into(),
                target: Mac(target),
                target_ip: target_ip.into(),
            };
            let mut padded = arp.encode().to_vec();
            padded.resize(60, 0);
            prop_assert_eq!(Arp::decode(&padded), Some(arp));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Arp::decode(&bytes);
        }
    }
}
