//! Texts and bytes exactly as they are stored, without JSON.

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};

use super::{PlainValues, SetOptions, interrupted};
use crate::error::{Error, ErrorKind, Result};
use crate::store::Message;

/// A key or a channel whose content is text or bytes exactly as they are, from
/// [`PlainValues::text`] and [`PlainValues::bytes`].
pub struct PlainExact<T> {
    values: PlainValues,
    name: String,
    content: PhantomData<fn() -> T>,
}

/// What [`PlainExact`] reads and writes: `String` and `Vec<u8>`. Sealed.
pub trait ExactContent: sealed::Content {}
impl<T: sealed::Content> ExactContent for T {}

mod sealed {
    use super::{Bytes, Error, ErrorKind, Result};

    pub trait Content: Sized + Send + 'static {
        type Borrowed: AsRef<[u8]> + Sync + ?Sized;
        fn of(step: &'static str, bytes: Bytes) -> Result<Self>;
    }

    impl Content for String {
        type Borrowed = str;
        fn of(step: &'static str, bytes: Bytes) -> Result<Self> {
            let detail = "the value is not UTF-8 text; read it with `bytes`";
            Self::from_utf8(bytes.into()).map_err(|_| Error::new(ErrorKind::Decode, step).detail(detail))
        }
    }

    impl Content for Vec<u8> {
        type Borrowed = [u8];
        fn of(_step: &'static str, bytes: Bytes) -> Result<Self> {
            Ok(bytes.into())
        }
    }
}

impl<T> fmt::Debug for PlainExact<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainExact")
    }
}

impl<T: ExactContent> PlainExact<T> {
    pub(super) fn new(values: PlainValues, name: String) -> Self {
        Self { values, name, content: PhantomData }
    }

    /// Returns what is stored under the key, or `None` if the key does not exist.
    ///
    /// # Errors
    /// Store errors; [`ErrorKind::Refused`] for a key that does not hold a string;
    /// [`ErrorKind::Decode`] if text is read and the bytes are not UTF-8.
    pub async fn get(&self) -> Result<Option<T>> {
        let found = self.values.store().load(&self.name).await?;
        found.map(|(bytes, _)| T::of("get", bytes)).transpose()
    }

    /// Stores the content under the key. Returns `false` if the condition in the options was not
    /// met; nothing was changed then.
    ///
    /// # Errors
    /// Store errors; [`ErrorKind::Configuration`] for a ttl of zero.
    pub async fn set(&self, content: &T::Borrowed, options: impl Into<SetOptions>) -> Result<bool> {
        self.values.put(&self.name, Bytes::copy_from_slice(content.as_ref()), options.into()).await
    }

    /// Sends a message to the channel. Returns the number of subscribers that the server sent it
    /// to.
    ///
    /// # Errors
    /// Store errors.
    pub async fn publish(&self, message: &T::Borrowed) -> Result<u64> {
        self.values.store().publish(&self.name, Bytes::copy_from_slice(message.as_ref())).await
    }

    /// Returns the messages sent to the channel from now on; see [`PlainValues::subscribe`].
    ///
    /// # Errors
    /// Store errors.
    pub async fn subscribe(&self) -> Result<impl Stream<Item = Result<T>> + Send + Unpin + 'static + use<T>> {
        let messages = self.values.store().subscribe(&self.name).await?;
        Ok(messages.map(|message| match message {
            Message::Payload(bytes) => T::of("subscribe", bytes),
            Message::Interrupted => Err(interrupted()),
        }))
    }
}
