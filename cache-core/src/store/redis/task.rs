//! The task that keeps the connection up, and what its end tells the [takeover](super::takeover).

use std::sync::Arc;

use super::connection::Link;
use crate::store::supervisor::{Supervised, Transport as _};

/// The supervisor of a connection. Made before its task, so that a task dropped before it ran
/// counts as ended, too. The fields are dropped in this order.
pub(super) struct ConnectionTask {
    #[expect(dead_code, reason = "only its drop has an effect")]
    ending: Ending,
    connection: Supervised<Link>,
    ended: Ended,
}

impl ConnectionTask {
    pub(super) fn new(connection: Supervised<Link>, link: Arc<Link>) -> Self {
        Self { ending: Ending(Arc::clone(&link)), connection, ended: Ended(link) }
    }

    /// Keeps the connection up until the store is closed.
    pub(super) async fn run(mut self) {
        let link = Arc::clone(&self.ended.0);
        if link.takeover.is_starting() {
            if let Err(error) = self.connection.open().await {
                link.failed(&error);
            }
            link.takeover.started();
        }
        self.connection.run().await;
    }
}

/// Dropped before the connection.
struct Ending(Arc<Link>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.takeover.ending();
    }
}

/// Dropped after the connection, whose drop unpublishes its session.
struct Ended(Arc<Link>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.takeover.ended();
    }
}
