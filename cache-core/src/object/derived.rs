//! The form of types with `#[derive(CacheObject)]`.

use std::marker::PhantomData;
use std::time::Duration;

use super::CacheObject;
use super::host::CellHost;
use super::of_form::ObjectType;
use crate::cell::{ObjectForm, open_record, seal_record};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{self, KeyPart, KeyText, KeyWriter};
use crate::value::codec::Codec;

/// A record of the cache under `<namespace>:<name>:<id>@object`.
pub(super) struct Derived<T> {
    host: CellHost,
    object: PhantomData<fn() -> T>,
}

impl<T: CacheObject> Derived<T> {
    pub(super) fn new(host: CellHost) -> Self {
        Self { host, object: PhantomData }
    }

    /// Like [`ObjectForm::key`], for a borrowed form of the id.
    pub(super) fn key_of<Q: KeyPart + ?Sized>(namespace: &str, id: &Q) -> String {
        let mut args = KeyText::new();
        KeyWriter::new(&mut args).member(id);
        let mut out = String::new();
        key::write_value_key(&mut out, namespace, &key::clean_name(T::NAME.into()), args.as_str(), "object");
        out
    }
}

impl<T: CacheObject> ObjectForm for Derived<T> {
    type Object = T;
    type Id = T::Id;

    fn key(&self, namespace: &str, id: &T::Id) -> String {
        Self::key_of(namespace, id)
    }

    fn encode(&self, key: &str, object: &T) -> Result<Vec<u8>> {
        seal_record(key, self.host.now(), T::TTL, |out| T::Codec::encode(object, out).map(|()| T::Codec::ID))
    }

    fn decode(&self, key: &str, bytes: &[u8]) -> Result<Option<T>> {
        let broken = |reason: &str| Error::new(ErrorKind::Decode, "load").detail(format!("`{}`: {reason}", T::NAME));
        let (codec, payload) = open_record(key, bytes).map_err(broken)?;
        if codec != T::Codec::ID {
            return Err(broken("the object was stored with another codec; read it with that one, and save it again"));
        }
        T::Codec::decode(payload).map(Some).map_err(|error| {
            broken("the stored fields do not fit the type; give new fields `#[serde(default)]`").source(error)
        })
    }
}

impl<T: CacheObject> ObjectType for Derived<T> {
    fn name(&self) -> &str {
        T::NAME
    }

    fn id<'a>(&self, object: &'a T) -> &'a T::Id {
        object.id()
    }

    fn ttl(&self) -> Duration {
        T::TTL
    }

    fn is_sliding(&self) -> bool {
        T::SLIDING
    }
}
