//! The session record as an object of the cache: its key forms and codecs.
//!
//! | form | key | bytes |
//! |---|---|---|
//! | of Express | `<prefix><id>` | the JSON text of Express, byte for byte |
//! | native | `<namespace>:<prefix>v1:{<tag>}<hash of the id>` | a record of the cache with that JSON |
//!
//! The key says which form the bytes have.

use super::record::{Found, Record};
use super::sessions::Sessions;
use crate::cell::{ObjectForm, open_record, seal_record};
use crate::error::Result;
use crate::observe::events::SessionEvent;
use crate::session::config::{Form, SessionKey};
use crate::value::codec::{Codec as _, Json};

impl ObjectForm for Sessions {
    type Object = Record;
    type Id = SessionKey;

    /// A key in the form of Express has no namespace.
    fn key(&self, _namespace: &str, place: &SessionKey) -> String {
        self.config.key(place.form, &place.id)
    }

    fn encode(&self, key: &str, record: &Record) -> Result<Vec<u8>> {
        let json = record.write();
        match self.config.form_of(key) {
            Form::Express => Ok(json),
            Form::Native => seal_record(key, self.now(), self.ttl(record).unwrap_or_default(), |out| {
                out.extend_from_slice(&json);
                Ok(Json::ID)
            }),
        }
    }

    /// What cannot be read counts as no session: it is left as it is, and an event is emitted.
    fn decode(&self, key: &str, bytes: &[u8]) -> Result<Option<Record>> {
        let found = match self.config.form_of(key) {
            Form::Express => Record::read(bytes),
            Form::Native => match open_record(key, bytes) {
                Ok((Json::ID, json)) => Record::read(json),
                Ok(_) => Found::Unreadable("the record was written with another codec"),
                Err(reason) => Found::Unreadable(reason),
            },
        };
        Ok(match found {
            Found::Record(mut record) => {
                record.claim(&self.config.keyring, || self.config.context(key));
                Some(record)
            }
            Found::Nothing => None,
            Found::Unreadable(reason) => {
                self.emit(SessionEvent::Unreadable { reason });
                None
            }
        })
    }
}
