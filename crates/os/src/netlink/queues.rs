//! Queueing of a link's outgoing frames.

use super::{Netlink, NetlinkError, Result};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use std::io;

impl Netlink {
    /// Drops every outgoing frame of this link, but accepts incoming ones: senders see no error.
    pub fn drop_outgoing(&mut self, name: &str) -> Result<()> {
        let mut message = self.root_queue(name)?;
        message
            .attributes
            .push(TcAttribute::Kind("blackhole".into()));
        self.change(
            || format!("drop what leaves by {name}"),
            NLM_F_CREATE | NLM_F_REPLACE,
            RouteNetlinkMessage::NewQueueDiscipline(message),
        )
    }

    /// Lets outgoing frames of this link pass again; no error where nothing dropped them.
    pub fn pass_outgoing(&mut self, name: &str) -> Result<()> {
        let message = self.root_queue(name)?;
        let passed = self.change(
            || format!("pass what leaves by {name}"),
            0,
            RouteNetlinkMessage::DelQueueDiscipline(message),
        );
        passed.or_else(nothing_was_held)
    }

    fn root_queue(&mut self, name: &str) -> Result<TcMessage> {
        let index = self.link_index(name)?;
        let mut message = TcMessage::with_index(index.cast_signed());
        message.header.parent = TcHandle::ROOT;
        Ok(message)
    }
}

fn nothing_was_held(error: NetlinkError) -> Result<()> {
    match error.reason() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}
