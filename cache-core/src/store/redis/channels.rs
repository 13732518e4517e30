//! Messages on channels, over a separate connection.
//!
//! It is separate, because a slow reader of messages must not block replies to calls. It is made
//! with the first subscription and dropped with the last. Subscribers of one channel share one
//! subscription at the server.
//!
//! Invariant: the subscriptions at the server follow the map of wanted channels; a subscriber whose
//! subscription was confirmed sees every message after that, or [`Message::Interrupted`].

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::{BoxFuture, join_all};
use futures::stream::{self, BoxStream};
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::{sleep, timeout};

use super::connection::Link;
use super::{RedisStore, error, on, reply};
use crate::background::Background;
use crate::error::{Error, ErrorKind, Result};
use crate::store::supervisor::Backoff;
use crate::store::{ChannelStore, Message};

/// How many messages a slow subscriber may lag behind before it misses some and is notified of
/// that.
const BUFFER: usize = 1024;
/// The maximum number of channels of one process.
const MAX_CHANNELS: usize = 4096;

#[derive(Default)]
pub(super) struct Channels {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    running: bool,
    wanted: HashMap<String, Channel>,
}

struct Channel {
    messages: broadcast::Sender<Message>,
    subscription: watch::Sender<Subscription>,
    subscribers: usize,
}

/// The state of a channel at the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subscription {
    Pending,
    Confirmed,
    /// The channel is given up: another attempt would be refused again.
    Refused,
}

/// One subscriber's share of a channel; the last one to leave removes the channel.
struct Membership {
    channels: Arc<Channels>,
    name: String,
}

impl ChannelStore for RedisStore {
    fn publish<'a>(&'a self, channel: &'a str, message: Bytes) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            let reply = self.link.command("publish", on(channel, "PUBLISH").arg(message.as_ref())).await?;
            reply::count("publish", reply)
        })
    }

    fn subscribe<'a>(&'a self, channel: &'a str) -> BoxFuture<'a, Result<BoxStream<'static, Message>>> {
        Box::pin(subscribe(&self.channels, &self.link, &self.background, channel))
    }
}

/// Subscribes to a channel and resolves when the server has confirmed it.
async fn subscribe(
    channels: &Arc<Channels>,
    link: &Arc<Link>,
    background: &Background,
    name: &str,
) -> Result<BoxStream<'static, Message>> {
    const STEP: &str = "subscribe";
    // Fails at once while the server is unreachable, like every call.
    drop(link.session(STEP).await?);
    let (membership, messages, mut subscription) = channels.join(name, STEP)?;
    if !channels.start(link, background) {
        return Err(error::closed(STEP));
    }
    channels.changed.notify_one();
    let bound = link.config.connect_timeout.saturating_add(link.config.response_timeout);
    // Cancelled here, the membership ends and the task removes the channel.
    let settled = subscription.wait_for(|state| *state != Subscription::Pending);
    match timeout(bound, settled).await.map(|state| state.map(|state| *state)) {
        Ok(Ok(Subscription::Refused)) => {
            return Err(Error::new(ErrorKind::Refused, STEP)
                .detail("the user may not subscribe to this channel (NOPERM); give it `+subscribe +unsubscribe` and `&channel` in the server's ACL"));
        }
        Ok(Ok(_confirmed)) => {}
        Ok(Err(_closed)) => return Err(error::closed(STEP)),
        Err(_elapsed) => return Err(error::timed_out(STEP)),
    }
    let stream = stream::unfold((messages, membership), |(mut messages, membership)| async move {
        let message = match messages.recv().await {
            Ok(message) => message,
            Err(broadcast::error::RecvError::Lagged(_)) => Message::Interrupted,
            Err(broadcast::error::RecvError::Closed) => return None,
        };
        Some((message, (messages, membership)))
    });
    Ok(stream.boxed())
}

impl Channels {
    fn join(
        self: &Arc<Self>,
        name: &str,
        step: &'static str,
    ) -> Result<(Membership, broadcast::Receiver<Message>, watch::Receiver<Subscription>)> {
        let mut state = self.state();
        if !state.wanted.contains_key(name) && state.wanted.len() >= MAX_CHANNELS {
            return Err(Error::new(ErrorKind::Limit, step)
                .detail(format!("a cache subscribes to at most {MAX_CHANNELS} channels")));
        }
        let channel = state.wanted.entry(name.to_owned()).or_insert_with(|| Channel {
            messages: broadcast::Sender::new(BUFFER),
            subscription: watch::Sender::new(Subscription::Pending),
            subscribers: 0,
        });
        channel.subscribers = channel.subscribers.saturating_add(1);
        let membership = Membership { channels: Arc::clone(self), name: name.to_owned() };
        Ok((membership, channel.messages.subscribe(), channel.subscription.subscribe()))
    }

    /// Starts the task with the first subscription.
    fn start(self: &Arc<Self>, link: &Arc<Link>, background: &Background) -> bool {
        let mut state = self.state();
        if !state.running {
            state.running = background.service(run(Arc::clone(self), Arc::clone(link)));
        }
        state.running
    }

    fn deliver(&self, push: &PushInfo) {
        let [Value::BulkString(name), Value::BulkString(payload), ..] = push.data.as_slice() else { return };
        let Ok(name) = std::str::from_utf8(name) else { return };
        let state = self.state();
        if let Some(channel) = state.wanted.get(name) {
            // An error means that the last subscriber is leaving.
            drop(channel.messages.send(Message::Payload(Bytes::copy_from_slice(payload))));
        }
    }

    fn interrupted(&self) {
        for channel in self.state().wanted.values() {
            channel.subscription.send_replace(Subscription::Pending);
            drop(channel.messages.send(Message::Interrupted));
        }
    }

    /// Records that the server has confirmed these channels. `again`: after a lost connection.
    fn confirm(&self, names: &HashSet<String>, again: bool) {
        let state = self.state();
        for channel in names.iter().filter_map(|name| state.wanted.get(name)) {
            if again {
                // Sent again after the confirmation: whatever a reader looks up from now on cannot
                // be missed as well.
                drop(channel.messages.send(Message::Interrupted));
            }
            channel.subscription.send_replace(Subscription::Confirmed);
        }
    }

    /// Ends the channel's streams.
    fn refuse(&self, name: &str) {
        let channel = self.state().wanted.remove(name);
        if let Some(channel) = channel {
            channel.subscription.send_replace(Subscription::Refused);
        }
    }

    fn names(&self) -> HashSet<String> {
        self.state().wanted.keys().cloned().collect()
    }

    /// Ends every stream.
    pub(super) fn close(&self) {
        self.state().wanted.clear();
        self.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut state = self.channels.state();
        let Some(channel) = state.wanted.get_mut(&self.name) else { return };
        channel.subscribers = channel.subscribers.saturating_sub(1);
        if channel.subscribers == 0 {
            state.wanted.remove(&self.name);
            self.channels.changed.notify_one();
        }
    }
}

/// Ends the streams when the task ends, also if it is dropped at any await. Without the task
/// subscribers would wait forever.
struct EndsStreams(Arc<Channels>);

impl Drop for EndsStreams {
    fn drop(&mut self) {
        self.0.close();
        self.0.state().running = false;
    }
}

async fn run(channels: Arc<Channels>, link: Arc<Link>) {
    let _guard = EndsStreams(Arc::clone(&channels));
    let keep = async {
        let mut backoff = Backoff::default();
        let mut again = false;
        loop {
            while channels.names().is_empty() {
                again = false;
                channels.changed.notified().await;
            }
            // The main connection reports failures; this one only tries again.
            if let Ok(()) = serve(&channels, &link, again, &mut backoff).await {
                again = false;
                continue;
            }
            channels.interrupted();
            again = true;
            sleep(backoff.next()).await;
        }
    };
    tokio::select! {
        () = keep => {}
        () = link.until_closed() => {}
    }
}

/// Serves one connection. `Ok`: no channel is wanted any more.
async fn serve(channels: &Arc<Channels>, link: &Link, again: bool, backoff: &mut Backoff) -> Result<()> {
    let lost = Arc::new(Notify::new());
    let (target, told) = (Arc::clone(channels), Arc::clone(&lost));
    let on_push = move |push: PushInfo| -> Result<(), std::fmt::Error> {
        match push.kind {
            PushKind::Message => target.deliver(&push),
            PushKind::Disconnection => told.notify_one(),
            _ => {}
        }
        Ok(())
    };
    let bound = link.config.response_timeout;
    let connect = timeout(link.config.connect_timeout, link.log_in(on_push));
    let wire = connect.await.map_err(|_elapsed| error::timed_out("subscribe"))??;
    let mut connection = wire.client();
    let mut subscribed: HashSet<String> = HashSet::new();
    loop {
        let mut wanted = channels.names();
        if wanted.is_empty() {
            return Ok(());
        }
        let gone: Vec<String> = subscribed.difference(&wanted).cloned().collect();
        let new: Vec<String> = wanted.difference(&subscribed).cloned().collect();
        if !gone.is_empty() {
            within(bound, connection.unsubscribe(&gone)).await?;
        }
        for (name, answer) in subscribe_each(bound, &connection, new).await {
            match answer {
                Err(error) if error.kind() == ErrorKind::Refused => {
                    channels.refuse(&name);
                    wanted.remove(&name);
                }
                answer => answer?,
            }
        }
        // Includes old ones: a channel that was left and joined again between two rounds has a new
        // entry.
        channels.confirm(&wanted, again && subscribed.is_empty());
        subscribed = wanted;
        tokio::select! {
            () = channels.changed.notified() => {}
            () = lost.notified() => return Err(link.disconnected("subscribe")),
            () = sleep(link.config.heartbeat) => {
                ping(bound, &mut connection).await?;
                backoff.reset();
            }
        }
    }
}

/// Sends one command for each channel, all at once: the server refuses a command as a whole if the
/// user has no right to one of its channels.
async fn subscribe_each(
    bound: Duration,
    connection: &MultiplexedConnection,
    names: Vec<String>,
) -> Vec<(String, Result<()>)> {
    let calls = names.into_iter().map(|name| {
        let mut connection = connection.clone();
        async move {
            let answer = within(bound, connection.subscribe(&name)).await;
            (name, answer)
        }
    });
    join_all(calls).await
}

async fn ping(bound: Duration, connection: &mut MultiplexedConnection) -> Result<()> {
    within(bound, connection.send_packed_command(&redis::cmd("PING"))).await.map(drop)
}

async fn within<T>(bound: Duration, call: impl Future<Output = redis::RedisResult<T>>) -> Result<T> {
    match timeout(bound, call).await {
        Ok(reply) => reply.map_err(|error| error::of("subscribe", &error)),
        Err(_elapsed) => Err(error::timed_out("subscribe")),
    }
}
