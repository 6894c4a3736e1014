//! What a link does with the frames that are to leave by it.

use super::{Netlink, NetlinkError, Result};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use std::io;

impl Netlink {
    /// Drops every frame that is to leave by this link, while those that arrive are taken: whoever sends notices nothing.
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

    /// Lets frames leave by this link again; no error where nothing held them.
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
