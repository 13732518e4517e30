use super::*;
use crate::golden::{self, hex};

fn envelope() -> Envelope {
    Envelope {
        codec: 2,
        present: true,
        fill_id: 0x0123_4567_89ab_cdef,
        created: Timestamp::from_millis(1_767_225_600_123),
        fresh_for: Duration::from_secs(3600),
        stale_for: Duration::from_secs(60),
        cost: Duration::from_micros(12_345),
        versions: None,
        tags: Vec::new(),
    }
}

fn tagged() -> Envelope {
    let tag = |name: &str, version| TagVersion { name: name.into(), version };
    Envelope { versions: Some(u128::MAX - 1), tags: vec![tag("posts", 5), tag("author:7", 1 << 100)], ..envelope() }
}

fn absent() -> Envelope {
    Envelope { codec: 0, present: false, ..envelope() }
}

fn sealed(envelope: &Envelope, key: &str) -> Vec<u8> {
    envelope
        .seal(key, |out| {
            out.extend_from_slice(b"payload");
            Ok(2)
        })
        .unwrap()
}

#[test]
fn a_sealed_record_opens_under_its_key_with_everything_in_it() {
    for (envelope, payload) in [(envelope(), &b"payload"[..]), (tagged(), b"payload"), (absent(), b"")] {
        let record = sealed(&envelope, "app:f:7@x");
        let (opened, at) = Envelope::open(&record, "app:f:7@x").unwrap();
        assert_eq!(opened, envelope);
        assert_eq!(&record[at..], payload);
        assert_eq!(record[FILL_ID_AT], envelope.fill_id.to_le_bytes());
        assert_eq!(opened.fresh_until(), Timestamp::from_millis(1_767_225_600_123 + 3_600_000));
        assert_eq!(opened.stale_until(), Timestamp::from_millis(1_767_225_600_123 + 3_660_000));
    }
    assert!(sealed(&absent(), "k").len() < 64);
}

// V7
#[test]
fn a_record_under_another_key_is_foreign() {
    let record = sealed(&envelope(), "app:f:7@x");
    assert!(Envelope::open(&record, "app:f:8@x").is_err());
    assert!(Envelope::open(&record, "").is_err());
}

// V7
#[test]
fn every_cut_and_every_flipped_bit_is_noticed() {
    for envelope in [envelope(), tagged(), absent()] {
        let record = sealed(&envelope, "k");
        for len in 0..record.len() {
            assert!(Envelope::open(&record[..len], "k").is_err(), "cut to {len}");
        }
        for bit in 0..record.len() * 8 {
            let mut flipped = record.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Envelope::open(&flipped, "k").is_err(), "bit {bit}");
        }
        assert!(Envelope::open(&[&record[..], b"x"].concat(), "k").is_err());
    }
}

/// Opens a record with a valid checksum and a forged header.
fn forged(envelope: &Envelope, at: usize, byte: u8) -> Result<(Envelope, usize), Unreadable> {
    let mut record = sealed(envelope, "k");
    record[at] = byte;
    let sum = checksum("k", &record).unwrap();
    overwrite(&mut record, CHECKSUM_AT, &sum.to_le_bytes());
    Envelope::open(&record, "k")
}

#[test]
fn a_header_that_contradicts_itself_is_refused_even_with_a_valid_checksum() {
    assert!(forged(&envelope(), 0, MAGIC[0]).is_ok());
    assert_eq!(forged(&envelope(), 0, b'L'), Err(Unreadable::Foreign("not a record of this library")));
    assert!(forged(&envelope(), 4, 0).is_err(), "no value, and a payload");
    assert!(forged(&envelope(), 5, 1).is_err(), "a tag that is not there");
    assert!(forged(&tagged(), 5, 3).is_err(), "a tag too many");
    assert!(forged(&tagged(), HEADER_LEN + 16, 255).is_err(), "a name longer than the record");
    assert!(forged(&absent(), 3, 1).is_err(), "a codec of nothing");
}

#[test]
// V7: it may be read by the build that wrote it, so it is no garbage
fn a_record_of_a_newer_build_is_distinguished_from_foreign_bytes() {
    let newer = |forged: Result<(Envelope, usize), Unreadable>| match forged {
        Err(Unreadable::Newer(fill_id, _)) => Some(fill_id),
        _ => None,
    };
    let known = Some(envelope().fill_id);
    assert_eq!(newer(forged(&envelope(), 2, LAYOUT + 1)), known);
    for flag in [COMPRESSED, ENCRYPTED, 0b0001_0000, 0b1000_0000] {
        assert_eq!(newer(forged(&envelope(), FLAGS_AT, flag | PRESENT)), known, "{flag:b}");
    }
    // A damaged record, or one cut off before the fill id, is foreign.
    let mut damaged = sealed(&envelope(), "k");
    damaged[FLAGS_AT] |= COMPRESSED;
    assert!(matches!(Envelope::open(&damaged, "k"), Err(Unreadable::Foreign(_))));
    let other_layout = [&MAGIC[..], &[LAYOUT + 1, 0, 0]].concat();
    assert!(matches!(Envelope::open(&other_layout, "k"), Err(Unreadable::Foreign(_))));
}

#[test]
fn times_beyond_their_range_saturate() {
    let far = Envelope {
        created: Timestamp::from_millis(u64::MAX),
        fresh_for: Duration::MAX,
        stale_for: Duration::MAX,
        cost: Duration::MAX,
        ..envelope()
    };
    let record = sealed(&far, "k");
    let (opened, _) = Envelope::open(&record, "k").unwrap();
    assert_eq!(opened.created, Timestamp::from_millis(MAX_U48));
    assert_eq!(opened.fresh_for, Duration::from_millis(MAX_U40));
    assert_eq!(opened.cost, Duration::from_micros(u32::MAX.into()));
    assert_eq!(opened.stale_until(), Timestamp::from_millis(MAX_U48 + 2 * MAX_U40));
}

#[test]
fn tags_beyond_their_range_are_refused() {
    let tag = |len: usize| TagVersion { name: "x".repeat(len).into(), version: 0 };
    let kind = |tags| Envelope { tags, ..envelope() }.seal("k", |_| Ok(1)).map(drop).map_err(|error| error.kind());
    assert_eq!(kind(vec![tag(255); 255]), Ok(()));
    assert_eq!(kind(vec![tag(256)]), Err(ErrorKind::Limit));
    assert_eq!(kind(vec![tag(1); 256]), Err(ErrorKind::Limit));
}

#[test]
fn a_payload_that_cannot_be_written_is_no_record() {
    let failing = envelope().seal("k", |_| Err(Error::new(ErrorKind::Encode, "encode")));
    assert_eq!(failing.unwrap_err().kind(), ErrorKind::Encode);
}

#[test]
fn no_text_and_no_lease_begins_like_a_record() {
    assert_ne!(MAGIC[0], crate::store::LEASE_MARK);
    assert!(String::from_utf8(MAGIC.to_vec()).is_err());
    assert!(Envelope::open(format!("L{:032x}", 5).as_bytes(), "k").is_err());
}

#[test]
fn golden_records_do_not_change() {
    golden::compare(
        "records.txt",
        &[
            ("plain", hex(&sealed(&envelope(), "app:f:7@x"))),
            ("tagged", hex(&sealed(&tagged(), "app:f:7@x"))),
            ("absent", hex(&sealed(&absent(), "app:f:7@x"))),
        ],
    );
}
