//! What a session is: its record, the forms in which it is stored, its writes, and the index of a
//! user's sessions. Nothing here uses the layer or a request.

pub(super) mod commit;
pub(super) mod custom_store;
pub(super) mod form;
pub(super) mod index;
pub(super) mod index_entry;
pub(super) mod meta;
pub(super) mod record;
pub(super) mod revoked;
pub(super) mod scope;
pub(super) mod sessions;
