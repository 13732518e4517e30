//! Messages from publishers to subscribers in this process.

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::sync::broadcast;

use super::{MemoryStore, lock};
use crate::error::Result;
use crate::store::Message;

/// How many messages a slow subscriber may lag behind.
const CHANNEL_BUFFER: usize = 1024;

impl MemoryStore {
    /// As [`Store::publish`](crate::store::Store::publish).
    pub(super) fn send(&self, channel: &str, message: Bytes) -> Result<u64> {
        self.check_open()?;
        let mut channels = lock(&self.channels);
        let receivers = match channels.get(channel) {
            None => 0,
            // An error says that the last subscriber has gone.
            Some(sender) => sender.send(message).unwrap_or_else(|_| {
                channels.remove(channel);
                0
            }),
        };
        Ok(receivers as u64)
    }

    /// As [`Store::subscribe`](crate::store::Store::subscribe).
    pub(super) fn receive(&self, channel: &str) -> Result<BoxStream<'static, Message>> {
        self.check_open()?;
        let receiver = lock(&self.channels)
            .entry(channel.to_owned())
            .or_insert_with(|| broadcast::Sender::new(CHANNEL_BUFFER))
            .subscribe();
        let messages = stream::unfold(receiver, |mut receiver| async move {
            match receiver.recv().await {
                Ok(payload) => Some((Message::Payload(payload), receiver)),
                Err(broadcast::error::RecvError::Lagged(_)) => Some((Message::Interrupted, receiver)),
                Err(broadcast::error::RecvError::Closed) => None,
            }
        });
        Ok(messages.boxed())
    }
}
