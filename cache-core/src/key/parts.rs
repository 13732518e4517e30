//! Key parts of the types of the standard library and of other crates.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::num::NonZero;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::{KeyPart, KeyWriter, Whole};

macro_rules! integers {
    ($($type:ty),* $(,)?) => {$(
        impl KeyPart for $type {
            #[inline]
            fn write_key(&self, key: &mut KeyWriter<'_>) {
                // The same output as `Display` in a fifth of the time: every hit runs this.
                match u64::try_from(*self) {
                    Ok(number) => key.out.push_number(number),
                    Err(_) => key.out.push_str(itoa::Buffer::new().format(*self)),
                }
            }

            #[inline(always)]
            fn __whole(&self) -> Whole<'_> {
                u64::try_from(*self).map_or(Whole::Other, Whole::Number)
            }
        }
    )*};
}
integers!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize);

macro_rules! by_display {
    ($($type:ty),* $(,)?) => {$(
        impl KeyPart for $type {
            fn write_key(&self, key: &mut KeyWriter<'_>) {
                let _infallible = write!(key.out, "{self}");
            }
        }
    )*};
}
by_display!(bool);
by_display!(std::net::IpAddr, std::net::Ipv4Addr, std::net::Ipv6Addr);
#[cfg(feature = "uuid")]
by_display!(uuid::Uuid);

by_display!(NonZero<u8>, NonZero<u16>, NonZero<u32>, NonZero<u64>, NonZero<u128>, NonZero<usize>);
by_display!(NonZero<i8>, NonZero<i16>, NonZero<i32>, NonZero<i64>, NonZero<i128>, NonZero<isize>);

impl KeyPart for str {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        key.text(self);
    }

    #[inline(always)]
    fn __whole(&self) -> Whole<'_> {
        Whole::Text(self)
    }
}

impl KeyPart for String {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        key.text(self);
    }

    #[inline(always)]
    fn __whole(&self) -> Whole<'_> {
        Whole::Text(self)
    }
}

impl KeyPart for char {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        key.text(self.encode_utf8(&mut [0; 4]));
    }
}

/// Writes seconds, with a decimal fraction for the rest: `90s`, `1.5s`.
impl KeyPart for Duration {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        self.as_secs().write_key(key);
        if self.subsec_nanos() != 0 {
            let fraction = format!(".{:09}", self.subsec_nanos());
            key.out.push_str(fraction.trim_end_matches('0'));
        }
        key.out.push('s');
    }
}

impl KeyPart for () {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        key.group(|_| {});
    }
}

/// In a key `None` is `!` and `Some(x)` is `?x`: the first character distinguishes them, whatever
/// `x` renders as. In a tag `Some(x)` is `x`, and `None` makes no tag.
impl<P: KeyPart> KeyPart for Option<P> {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        match self {
            None => key.out.push_none(),
            Some(part) => {
                key.out.push_some();
                part.write_key(key);
            }
        }
    }
}

impl<P: KeyPart> KeyPart for [P] {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        key.list(|list| self.iter().for_each(|part| list.member(part)));
    }
}

impl<P: KeyPart, const N: usize> KeyPart for [P; N] {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        self.as_slice().write_key(key);
    }
}

impl<P: KeyPart> KeyPart for Vec<P> {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        self.as_slice().write_key(key);
    }
}

impl<P: KeyPart> KeyPart for BTreeSet<P> {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        key.list(|list| self.iter().for_each(|part| list.member(part)));
    }
}

impl<K: KeyPart, V: KeyPart> KeyPart for BTreeMap<K, V> {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        key.list(|list| self.iter().for_each(|pair| list.member(&pair)));
    }
}

macro_rules! by_deref {
    ($($type:ty),* $(,)?) => {$(
        impl<P: KeyPart + ?Sized> KeyPart for $type {
            fn write_key(&self, key: &mut KeyWriter<'_>) {
                (**self).write_key(key);
            }

            #[inline(always)]
            fn __whole(&self) -> Whole<'_> {
                (**self).__whole()
            }
        }
    )*};
}
by_deref!(&P, &mut P, Box<P>, Rc<P>, Arc<P>);

impl<P: KeyPart + ToOwned + ?Sized> KeyPart for Cow<'_, P> {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        (**self).write_key(key);
    }

    fn __whole(&self) -> Whole<'_> {
        (**self).__whole()
    }
}

macro_rules! tuples {
    ($(($($name:ident)+))*) => {$(
        impl<$($name: KeyPart),+> KeyPart for ($($name,)+) {
            fn write_key(&self, key: &mut KeyWriter<'_>) {
                #[expect(non_snake_case, reason = "one variable for each type parameter")]
                let ($($name,)+) = self;
                key.group(|group| {
                    $(group.member($name);)+
                });
            }
        }
    )*};
}
tuples!((A)(A B)(A B C)(A B C D)(A B C D E)(A B C D E F)(A B C D E F G)(A B C D E F G H)(A B C D E F G H I)(A B C D E F G H I J)(A B C D E F G H I J K)(A B C D E F G H I J K L));

// Dates in ISO 8601. Of their characters only the space would need an escape, and these forms have
// none.
#[cfg(feature = "chrono")]
mod chrono_parts {
    use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, TimeZone};

    use super::{KeyPart, KeyWriter};

    impl KeyPart for NaiveDate {
        fn write_key(&self, key: &mut KeyWriter<'_>) {
            key.display(&format_args!("{self:?}"));
        }
    }
    impl KeyPart for NaiveTime {
        fn write_key(&self, key: &mut KeyWriter<'_>) {
            key.display(&format_args!("{self:?}"));
        }
    }
    impl KeyPart for NaiveDateTime {
        fn write_key(&self, key: &mut KeyWriter<'_>) {
            key.display(&format_args!("{self:?}"));
        }
    }
    /// Writes the instant in UTC: two offsets of the same instant are equal values, so they are one
    /// key.
    impl<Z: TimeZone> KeyPart for DateTime<Z> {
        fn write_key(&self, key: &mut KeyWriter<'_>) {
            key.display(&format_args!("{:?}Z", self.naive_utc()));
        }
    }
}

#[cfg(feature = "time")]
mod time_parts {
    use time::{Date, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

    use super::{KeyPart, KeyWriter};

    impl KeyPart for Date {
        fn write_key(&self, key: &mut KeyWriter<'_>) {
            key.display(self);
        }
    }
    impl KeyPart for Time {
        fn write_key(&self, key: &mut KeyWriter<'_>) {
            key.display(self);
        }
    }
    impl KeyPart for PrimitiveDateTime {
        fn write_key(&self, key: &mut KeyWriter<'_>) {
            key.display(&format_args!("{}T{}", self.date(), self.time()));
        }
    }
    /// Writes the instant in UTC: two offsets of the same instant are equal values, so they are one
    /// key.
    impl KeyPart for OffsetDateTime {
        fn write_key(&self, key: &mut KeyWriter<'_>) {
            let utc = self.to_offset(UtcOffset::UTC);
            key.display(&format_args!("{}T{}Z", utc.date(), utc.time()));
        }
    }
}

#[cfg(feature = "jiff")]
mod jiff_parts {
    use super::{KeyPart, KeyWriter};

    macro_rules! by_display {
        ($($type:ty),*) => {$(
            impl KeyPart for $type {
                fn write_key(&self, key: &mut KeyWriter<'_>) {
                    key.display(self);
                }
            }
        )*};
    }
    by_display!(jiff::Timestamp, jiff::Zoned, jiff::civil::Date, jiff::civil::Time, jiff::civil::DateTime);
}
