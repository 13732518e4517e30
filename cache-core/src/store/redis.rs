//! The Redis store.
//!
//! A hit is one plain GET. An operation that compares before it writes is a script. An operation
//! that writes several keys is a pipeline, and needs no MULTI: between its commands another process
//! may run a fill, but a fill compares the lease or the fill id that the first command of the
//! pipeline has already replaced (R2).
//!
//! All types of the client stay inside this module.

mod cells;
mod channels;
mod config;
mod connection;
mod error;
mod fences;
mod hashes;
mod invalidation;
mod leases;
mod plain;
mod read_batch;
mod replicas;
mod reply;
mod retry;
mod rights;
mod scripts;
mod sweep;
mod takeover;
mod task;
mod tracking;
mod trips;
mod values;
mod versions;
mod warm;
mod wire;

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use redis::{Cmd, ScriptInvocation, Value};

use self::channels::Channels;
pub(crate) use self::config::{RedisConfig, Replicas};
use self::connection::Link;
pub(crate) use self::read_batch::Queued;
use self::read_batch::Reads;
use self::replicas::Replicated;
use self::task::ConnectionTask;
use self::trips::Sizes;
use super::{Expiry, Listener, Operation, Store, Trust};
use crate::background::Background;
use crate::clock::{Clock, millis};
use crate::error::{ErrorKind, Result};
use crate::observe::events::Events;
use crate::store::supervisor::{Supervised, Transport as _};

/// Redis counts expiries in a signed number of milliseconds since 1970; 100 years stay clear of its
/// end.
const LONGEST_EXPIRY_MS: u64 = 100 * 365 * 24 * 3600 * 1000;

/// A Redis server, or another server with its protocol.
pub(crate) struct RedisStore {
    link: Arc<Link>,
    reads: Arc<Reads>,
    sizes: Arc<Sizes>,
    channels: Arc<Channels>,
    /// Invalidations that wait for replicas; `None`: they do not.
    replicated: Option<Replicated>,
    background: Arc<Background>,
}

impl RedisStore {
    /// Connects once, within the connect timeout.
    ///
    /// A server that cannot be reached is not an error unless it `is_required`: connecting goes on
    /// in the background, and calls fail at once with [`ErrorKind::Unavailable`] until it works.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Configuration`]: only a change can fix it (wrong password, database,
    ///   certificate, protocol).
    /// - [`ErrorKind::Closed`]: there is no tokio runtime, or `background` was shut down.
    /// - [`ErrorKind::Unavailable`]: the server cannot be reached, if it `is_required`.
    pub(crate) async fn connect(
        config: RedisConfig,
        is_required: bool,
        clock: Clock,
        events: Events,
        background: Arc<Background>,
    ) -> Result<Arc<Self>> {
        let link = Arc::new(Link::new(config, clock, events, &background)?);
        let mut connection = Supervised::new(Arc::clone(&link), link.config.max_staleness);
        match connection.open().await {
            Ok(()) => {}
            // Returned to the caller.
            Err(error) if error.kind() == ErrorKind::Configuration => return Err(error),
            Err(error) if is_required => return Err(error.of(&link.config.to_string())),
            Err(error) => link.failed(&error),
        }
        let sizes = Arc::new(Sizes::new());
        let reads = Arc::new(Reads::new(Arc::clone(&sizes)));
        let replicated = link.config.replicas.map(|wanted| Replicated::new(Arc::clone(&link), wanted));
        let store = Arc::new(Self { link, reads, sizes, channels: Arc::default(), replicated, background });
        let (link, background) = (&store.link, &store.background);
        drop(link.store.set(Arc::downgrade(&store)));
        let keep = {
            let link = Arc::clone(link);
            move |connection| ConnectionTask::new(connection, Arc::clone(&link)).run()
        };
        let anew = {
            let (link, keep) = (Arc::clone(link), keep.clone());
            move || -> BoxFuture<'static, ()> {
                Box::pin(keep(Supervised::new(Arc::clone(&link), link.config.max_staleness)))
            }
        };
        let serve = {
            let (link, reads) = (Arc::clone(link), Arc::clone(&store.reads));
            move || read_batch::serve(Arc::clone(&link), Arc::clone(&reads))
        };
        let supervised = background.lasting(keep(connection), anew);
        if !supervised || !background.lasting(serve(), move || Box::pin(serve())) {
            return Err(error::closed("connect"));
        }
        Ok(store)
    }

    async fn run(&self, step: &'static str, script: &ScriptInvocation<'_>) -> Result<Value> {
        self.link.script(step, script).await
    }

    async fn set(
        &self,
        step: &'static str,
        key: &str,
        bytes: &Bytes,
        expiry: Option<Expiry>,
        nx: bool,
    ) -> Result<bool> {
        let mut command = redis::cmd("SET");
        command.arg(key).arg(bytes.as_ref());
        if nx {
            command.arg("NX");
        }
        if let Some(expiry) = expiry {
            command.arg("PX").arg(ms(expiry));
        }
        reply::was_set(step, self.link.command(step, &command).await?)
    }
}

impl Store for RedisStore {
    fn listen(&self, listener: Weak<dyn Listener>) {
        self.link.pushes.listen(listener);
    }

    fn trust(&self) -> Arc<Trust> {
        Arc::clone(&self.link.trust)
    }

    fn later(&self, operation: Operation) {
        self.link.outstanding.add(operation);
    }

    fn settle(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if self.link.is_up() {
                // A failure is reported by its connection.
                drop(self.link.outstanding.settle(self).await);
            }
        })
    }

    fn is_available(&self) -> bool {
        self.link.is_up()
    }

    fn epoch(&self) -> u64 {
        self.link.pushes.epoch()
    }

    fn evictions(&self) -> BoxFuture<'_, Result<Option<u64>>> {
        Box::pin(warm::evictions(self))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        // Nothing to wait for: the sockets close as their tasks are dropped, which
        // `Background::shutdown` waits for.
        self.link.close();
        self.channels.close();
        self.replicated.iter().for_each(Replicated::close);
        Box::pin(std::future::ready(()))
    }
}

fn on(key: &str, name: &str) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(key);
    command
}

/// Converts an expiry to the range of Redis: at least one millisecond.
fn ms(expiry: Duration) -> u64 {
    millis(expiry).clamp(1, LONGEST_EXPIRY_MS)
}
