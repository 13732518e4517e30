//! Messages from publishers to subscribers in this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::{self, BoxFuture};
use futures::stream::{self, BoxStream};
use tokio::sync::broadcast;

use super::{MemoryStore, lock};
use crate::error::Result;
use crate::store::{ChannelStore, Message};

/// How many messages a slow subscriber may lag behind.
const CHANNEL_BUFFER: usize = 1024;

/// The channels by name; each has a subscriber.
pub(super) type Channels = Arc<Mutex<HashMap<String, broadcast::Sender<Bytes>>>>;

/// Removes a channel from the table with its last subscriber.
struct Leave {
    channels: Channels,
    name: String,
}

impl Drop for Leave {
    fn drop(&mut self) {
        let mut channels = lock(&self.channels);
        if channels.get(&self.name).is_some_and(|sender| sender.receiver_count() == 0) {
            channels.remove(&self.name);
        }
    }
}

impl ChannelStore for MemoryStore {
    fn publish<'a>(&'a self, channel: &'a str, message: Bytes) -> BoxFuture<'a, Result<u64>> {
        let send = || {
            self.check_open()?;
            let mut channels = lock(&self.channels);
            let receivers = match channels.get(channel) {
                None => 0,
                // An error means that the last subscriber has gone.
                Some(sender) => sender.send(message).unwrap_or_else(|_| {
                    channels.remove(channel);
                    0
                }),
            };
            Ok(receivers as u64)
        };
        Box::pin(future::ready(send()))
    }

    fn subscribe<'a>(&'a self, channel: &'a str) -> BoxFuture<'a, Result<BoxStream<'static, Message>>> {
        let receive = || {
            self.check_open()?;
            let leave = Leave { channels: Arc::clone(&self.channels), name: channel.to_owned() };
            let receiver = lock(&self.channels)
                .entry(channel.to_owned())
                .or_insert_with(|| broadcast::Sender::new(CHANNEL_BUFFER))
                .subscribe();
            // Dropped in this order: the receiver is gone when the table is checked.
            let messages = stream::unfold((receiver, leave), |(mut receiver, leave)| async move {
                match receiver.recv().await {
                    Ok(payload) => Some((Message::Payload(payload), (receiver, leave))),
                    Err(broadcast::error::RecvError::Lagged(_)) => Some((Message::Interrupted, (receiver, leave))),
                    Err(broadcast::error::RecvError::Closed) => None,
                }
            });
            Ok(messages.boxed())
        };
        Box::pin(future::ready(receive()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::observe::events::Events;

    #[tokio::test]
    // C1
    async fn a_channel_is_forgotten_with_its_last_subscriber() {
        let store = MemoryStore::new(Clock::manual(), Events::new(Vec::new(), &Clock::manual()), usize::MAX);
        let mut stays = store.subscribe("stays").await.unwrap();
        for number in 0..1000 {
            let name = format!("user {number}");
            let (one, other) = (store.subscribe(&name).await.unwrap(), store.subscribe(&name).await.unwrap());
            drop(one);
            assert_eq!(store.publish(&name, Bytes::new()).await.unwrap(), 1);
            drop(other);
        }
        assert_eq!(lock(&store.channels).len(), 1);
        assert_eq!(store.publish("stays", Bytes::from_static(b"m")).await.unwrap(), 1);
        assert!(stays.next().await == Some(Message::Payload(Bytes::from_static(b"m"))));
    }
}
