//! Channels: messages between processes.

use std::fmt;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use crate::error::Result;

/// One item of a subscription.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// A published payload.
    Payload(Bytes),
    /// Messages may have been lost here: the connection broke, or the reader was too slow.
    Interrupted,
}

/// The operations on channels.
pub(crate) trait ChannelStore: Send + Sync + 'static {
    /// Sends a message. Returns the number of subscribers that the server delivered it to.
    fn publish<'a>(&'a self, channel: &'a str, message: Bytes) -> BoxFuture<'a, Result<u64>>;

    /// Returns the messages of a channel from now on.
    ///
    /// The stream ends when the store is closed. A lost connection is reported as
    /// [`Message::Interrupted`], at once and again when the subscription has been restored:
    /// whatever is looked up after the second one cannot be missed.
    fn subscribe<'a>(&'a self, channel: &'a str) -> BoxFuture<'a, Result<BoxStream<'static, Message>>>;
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payload(bytes) => write!(f, "Payload({} bytes)", bytes.len()),
            Self::Interrupted => f.write_str("Interrupted"),
        }
    }
}
