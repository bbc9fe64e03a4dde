//! Objects block by block: the same as at once, in bounded memory.

use std::io::{self, Cursor, Read, Write};

use proptest::prelude::*;

use super::*;

/// What blocks must not change.
#[derive(Debug, PartialEq)]
struct Facts {
    rows: Vec<String>,
    row_bytes: Vec<Bytes>,
    spans: Vec<Span>,
    rejects: Vec<RowReject>,
    row_count: u64,
    unpacked_bytes: u64,
}

fn facts(decoded: &Decoded) -> Facts {
    let batches = &decoded.batches;
    Facts {
        rows: rows(decoded),
        row_bytes: batches.iter().flat_map(|batch| (0..batch.spans.len()).map(|row| batch.row_bytes(row))).collect(),
        spans: batches.iter().flat_map(|batch| batch.spans.clone()).collect(),
        rejects: decoded.rejects.clone(),
        row_count: decoded.row_count,
        unpacked_bytes: decoded.unpacked_bytes,
    }
}

fn joined(mut decoder: ObjectDecoder<'_>) -> Result<Decoded, DecodeError> {
    let mut decoded = Decoded::default();
    while let Some(block) = decoder.next_block()? {
        decoded.append(block);
    }
    Ok(decoded)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn packed(object: &[u8], cut: usize) -> [Vec<u8>; 3] {
    let (head, tail) = object.split_at(cut.min(object.len()));
    let zstd = |bytes| zstd::encode_all(bytes, 1).unwrap();
    [object.to_vec(), [gzip(head), gzip(tail)].concat(), [zstd(head), zstd(tail)].concat()]
}

/// Gives a few bytes at a time.
struct Trickle(Cursor<Vec<u8>>, usize);

impl Read for Trickle {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = into.len().min(self.1);
        self.0.read(&mut into[..count])
    }
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[a-z]{0,9}".prop_map(|text| format!("{{\"v\":\"{text}\"}}").into_bytes()),
        1 => prop::sample::select(vec![&b""[..], b" \t", b"\r", b"{}", b"nope", b"\"\xff\"", b"\xef\xbb\xbf{}"])
            .prop_map(<[u8]>::to_vec),
        1 => (0_usize..70).prop_map(|len| vec![b'x'; len]),
        1 => (0_usize..70).prop_map(|len| vec![b' '; len]),
    ]
}

/// Lines with their ends: `\r\n` where the second says so.
fn object(lines: &[(Vec<u8>, bool)], has_mark: bool) -> Vec<u8> {
    let mut object = if has_mark { b"\xef\xbb\xbf".to_vec() } else { Vec::new() };
    for (line, is_dos) in lines {
        object.extend_from_slice(line);
        object.extend_from_slice(if *is_dos { b"\r\n" } else { b"\n" });
    }
    object
}

/// Reads `stop` blocks, goes on where the next one begins, and holds all rows against those of the whole.
fn resumes(object: &[u8], block_bytes: usize, cut: usize, stop: usize) {
    let connector = connector(vec![field("v", FieldType::Utf8, true)], NewField::Ignore);
    let limits = DecodeLimits { record_bytes_max: 30, ..LIMITS };
    let whole = facts(&decode_object(&connector, Bytes::copy_from_slice(object), &limits).unwrap());
    for stored in packed(object, cut) {
        let stream = Cursor::new(stored.clone());
        let mut first = ObjectDecoder::of_stream(&connector, stream, &limits).unwrap().with_block_bytes(block_bytes);
        let mut decoded = Decoded::default();
        for _ in 0..stop {
            if let Some(block) = first.next_block().unwrap() {
                decoded.append(block);
            }
        }
        let point = first.resume_point().expect("lines stand for themselves");
        assert!(point.stored.unpacked_offset <= point.unpacked_offset);
        if point.stored.compression == Compression::None {
            assert_eq!(point.stored.stored_offset, point.unpacked_offset);
        } else if point.unpacked_offset > cut as u64 && cut > 0 && cut <= object.len() {
            assert!(point.stored.stored_offset > 0, "the second member has begun");
        }
        let rest = Cursor::new(stored[point.stored.stored_offset as usize..].to_vec());
        let second = ObjectDecoder::resume(&connector, rest, &limits, &point).unwrap();
        decoded.append(joined(second.with_block_bytes(block_bytes)).unwrap());
        assert_eq!(facts(&decoded), whole);
    }
}

/// Found by the property below: a long record is the last but one thing of its member.
#[test]
fn an_object_resumes_behind_a_record_that_is_too_long_where_its_member_ends() {
    let (x, space) = (|len| vec![b'x'; len], |len| vec![b' '; len]);
    let row = |text: &str| format!("{{\"v\":\"{text}\"}}").into_bytes();
    let lines = [
        (space(25), false),
        (row("aaaaaaaaa"), true),
        (row("aaaaa"), false),
        (x(17), false),
        (x(38), false),
        (row("aaaa"), false),
        (b"\xef\xbb\xbf{}".to_vec(), true),
    ];
    resumes(&object(&lines, false), 7, 136, 7);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_block_size_changes_a_row_a_reject_or_a_number(
        lines in prop::collection::vec((line(), any::<bool>()), 0..20),
        has_mark in any::<bool>(),
        ends_open in any::<bool>(),
        block_bytes in 1_usize..90,
        step in 1_usize..40,
        cut in 0_usize..200,
    ) {
        let connector = connector(vec![field("v", FieldType::Utf8, true)], NewField::Ignore);
        let limits = DecodeLimits { record_bytes_max: 30, ..LIMITS };
        let mut object = object(&lines, has_mark);
        if ends_open {
            object.pop();
        }
        let whole = decode_object(&connector, Bytes::from(object.clone()), &limits).unwrap();
        check(&connector, &object, &whole);
        let whole = facts(&whole);
        for stored in packed(&object, cut) {
            let in_memory = ObjectDecoder::of_bytes(&connector, Bytes::from(stored.clone()), &limits).unwrap();
            let in_memory = joined(in_memory.with_block_bytes(block_bytes)).unwrap();
            check(&connector, &object, &in_memory);
            prop_assert_eq!(&facts(&in_memory), &whole);
            let stream = Trickle(Cursor::new(stored), step);
            let streamed = ObjectDecoder::of_stream(&connector, stream, &limits).unwrap();
            prop_assert_eq!(&facts(&joined(streamed.with_block_bytes(block_bytes)).unwrap()), &whole);
        }
    }

    #[test]
    fn a_resumed_object_goes_on_with_the_next_row(
        lines in prop::collection::vec((line(), any::<bool>()), 1..20),
        has_mark in any::<bool>(),
        block_bytes in 1_usize..60,
        cut in 0_usize..200,
        stop in 0_usize..8,
    ) {
        resumes(&object(&lines, has_mark), block_bytes, cut, stop);
    }

    #[test]
    fn a_stream_is_cut_where_the_same_bytes_in_memory_are(
        lens in prop::collection::vec(0_usize..60, 0..30),
        block_bytes in 1_usize..90,
    ) {
        let connector = one(FieldType::Json);
        let limits = DecodeLimits { record_bytes_max: 40, ..LIMITS };
        let object: Vec<u8> = lens.iter().flat_map(|len| [vec![b'x'; *len], vec![b'\n']].concat()).collect();
        let cuts = |mut decoder: ObjectDecoder<'_>| {
            let mut cuts = Vec::new();
            while let Some(block) = decoder.next_block().unwrap() {
                cuts.push(block.unpacked_bytes);
            }
            cuts
        };
        let in_memory = ObjectDecoder::of_bytes(&connector, Bytes::from(object.clone()), &limits).unwrap();
        let streamed = ObjectDecoder::of_stream(&connector, Cursor::new(object), &limits).unwrap();
        prop_assert_eq!(
            cuts(in_memory.with_block_bytes(block_bytes)),
            cuts(streamed.with_block_bytes(block_bytes))
        );
    }
}

#[test]
fn of_a_long_record_the_first_mib_is_kept_wherever_it_is_read_from() {
    let connector = one(FieldType::Json);
    let limits = DecodeLimits { object_bytes_max: 1 << 30, ..LIMITS };
    let len = 30 << 20;
    let object = [&b"{\"v\":1}\n"[..], &vec![b'x'; len], b"\r\n{\"v\":2}"].concat();
    let whole = decode_object(&connector, Bytes::from(object.clone()), &limits).unwrap();
    assert_eq!(rows(&whole), ["1|0", "2|2"]);
    let reject = &whole.rejects[0];
    assert_eq!((reject.row, reject.byte_offset, reject.bytes.len()), (1, 8, 1 << 20));
    let detail = format!("{len} bytes, limits.record_bytes_max allows 10000 (the first 1048576 bytes are kept)");
    assert_eq!(reject.detail, detail);
    let streamed = joined(ObjectDecoder::of_stream(&connector, Cursor::new(gzip(&object)), &limits).unwrap()).unwrap();
    assert_eq!(facts(&streamed), facts(&whole));
}

#[test]
fn blocks_of_bytes_that_are_not_compressed_are_no_copies() {
    let connector = connector(vec![field("v", FieldType::Utf8, true)], NewField::Ignore);
    let object = Bytes::from("{\"v\":\"a\"}\n".repeat(100));
    let decoder = ObjectDecoder::of_bytes(&connector, object.clone(), &LIMITS).unwrap();
    let decoded = joined(decoder.with_block_bytes(64)).unwrap();
    assert!(decoded.batches.len() > 10);
    for batch in &decoded.batches {
        assert_eq!(batch.unpacked.as_ptr(), object[batch.unpacked_offset as usize..].as_ptr());
    }
}

#[test]
fn a_block_is_a_few_mib_of_whole_records() {
    let connector = one(FieldType::Json);
    let limits = DecodeLimits { object_bytes_max: 1 << 30, ..LIMITS };
    let line = format!("{{\"v\":\"{}\"}}\n", "x".repeat(991));
    let object = line.repeat(30_000);
    let mut decoder = ObjectDecoder::of_stream(&connector, Cursor::new(object.as_bytes()), &limits).unwrap();
    let mut sizes = Vec::new();
    while let Some(block) = decoder.next_block().unwrap() {
        sizes.push(block.unpacked_bytes);
        assert_eq!(block.unpacked_bytes, block.row_count * line.len() as u64);
    }
    assert_eq!(sizes.iter().sum::<u64>(), object.len() as u64);
    let (last, others) = sizes.split_last().unwrap();
    assert!(others.iter().all(|size| (7 << 20..=8 << 20).contains(size)) && *last <= 8 << 20, "{sizes:?}");
}

#[test]
fn an_end_that_comes_too_early_is_a_fault_even_after_good_blocks() {
    let connector = one(FieldType::Json);
    let object = "{\"v\":1}\n".repeat(10_000);
    let mut stored = gzip(object.as_bytes());
    stored.truncate(stored.len() - 4);
    let decoder = ObjectDecoder::of_stream(&connector, Cursor::new(stored), &LIMITS).unwrap();
    let mut decoder = decoder.with_block_bytes(1000);
    assert_eq!(decoder.next_block().unwrap().unwrap().row_count, 125);
    let error = std::iter::repeat_with(|| decoder.next_block()).find_map(Result::err).unwrap();
    assert!(matches!(error, DecodeError::Fault(ObjectFault::CorruptCompression { .. })), "{error}");
}
