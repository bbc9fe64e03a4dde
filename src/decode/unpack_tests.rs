use std::io::Write;

use super::*;

const TEXT: &[u8] = b"{\"a\":1}\n{\"a\":2}\n";
const LIMIT: u64 = 1 << 20;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

fn skippable() -> Vec<u8> {
    vec![0x5e, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, b'x', b'y', b'z']
}

fn limits(bytes_max: u64) -> UnpackLimits {
    UnpackLimits { bytes_max, ratio_max: u64::MAX }
}

fn unpack(bytes: Bytes, bytes_max: u64) -> Result<Bytes, ObjectFault> {
    let mut streamed = Vec::new();
    let stored = Stored::stream(Box::new(io::Cursor::new(bytes.clone())), 0);
    let streamed = Unpacker::new(stored, limits(bytes_max)).and_then(|mut unpacker| {
        while unpacker.read(&mut streamed, 7)? == 7 {}
        Ok(streamed)
    });
    let at_once = Unpacker::of_bytes(bytes, limits(bytes_max)).and_then(|found| match found {
        Ok(plain) => Ok(plain.to_vec()),
        Err(mut unpacker) => {
            let mut unpacked = Vec::new();
            unpacker.read(&mut unpacked, 1 << 30)?;
            Ok(unpacked)
        }
    });
    let fault = |error| match error {
        DecodeError::Fault(fault) => fault,
        DecodeError::Read(error) => panic!("{error}"),
    };
    let (streamed, at_once) = (streamed.map_err(fault), at_once.map_err(fault));
    assert_eq!(streamed.clone().map_err(|fault| fault.reason()), at_once.clone().map_err(|fault| fault.reason()));
    at_once.map(Bytes::from)
}

fn unpacked(bytes: Vec<u8>) -> Vec<u8> {
    unpack(Bytes::from(bytes), LIMIT).unwrap().to_vec()
}

fn reason(bytes: Vec<u8>, limit: u64) -> &'static str {
    unpack(Bytes::from(bytes), limit).unwrap_err().reason().as_str()
}

#[test]
fn content_tells_the_compression() {
    assert_eq!(unpacked(TEXT.to_vec()), TEXT);
    assert_eq!(unpacked(gzip(TEXT)), TEXT);
    assert_eq!(unpacked(zstd(TEXT)), TEXT);
    assert_eq!(unpacked(Vec::new()), b"");
    assert_eq!(unpacked(gzip(b"")), b"");
    assert_eq!(unpacked(zstd(b"")), b"");
}

#[test]
fn members_and_frames_follow_each_other() {
    let twice = [TEXT, TEXT].concat();
    assert_eq!(unpacked([gzip(TEXT), gzip(b""), gzip(TEXT)].concat()), twice);
    assert_eq!(unpacked([skippable(), zstd(TEXT), skippable(), zstd(TEXT), skippable()].concat()), twice);
    assert_eq!(unpacked(skippable()), b"");
}

#[test]
fn empty_members_and_frames_take_no_memory() {
    for (empty, content) in [(gzip(b""), gzip(b"a\n")), (skippable(), zstd(b"a\n"))] {
        let many = [empty.repeat(10_000), content.clone(), empty.repeat(10_000), content].concat();
        let mut unpacker = Unpacker::new(Stored::stream(Box::new(many.as_slice()), 0), limits(1 << 20)).unwrap();
        let mut bytes = Vec::new();
        while unpacker.read(&mut bytes, 1 << 16).unwrap() > 0 {}
        assert_eq!(bytes, b"a\na\n");
        let kept = match &unpacker.stream {
            Stream::Gzip(members) => members.boundaries.len(),
            Stream::Zstd(frames) => frames.boundaries.len(),
            Stream::Plain(_) => panic!("it is compressed"),
        };
        assert!(kept <= 4, "{kept} boundaries");
        // where reading goes on from: behind the empty ones, or before them
        let point = unpacker.point(2);
        assert!(point.unpacked_offset <= 2);
    }
}

#[test]
fn a_stream_cut_anywhere_is_corrupt() {
    for packed in [gzip(TEXT), zstd(TEXT), [gzip(TEXT), gzip(TEXT)].concat()] {
        assert_eq!(reason(gzip(TEXT)[..2].to_vec(), LIMIT), "corrupt_compression");
        let whole_member = gzip(TEXT).len();
        for end in 4..packed.len() {
            if end != whole_member {
                assert_eq!(reason(packed[..end].to_vec(), LIMIT), "corrupt_compression", "{end}");
            }
        }
    }
}

#[test]
fn what_follows_a_stream_must_be_another_one() {
    for packed in [gzip(TEXT), zstd(TEXT)] {
        for tail in [&b"\0"[..], b"garbage", b"{}\n", &[0x1f]] {
            assert_eq!(reason([&packed, tail].concat(), LIMIT), "corrupt_compression");
        }
    }
    assert_eq!(reason([gzip(TEXT), zstd(TEXT)].concat(), LIMIT), "corrupt_compression");
}

#[test]
fn a_flipped_bit_is_noticed() {
    let mut packed = gzip(TEXT);
    let at = packed.len() - 6;
    packed[at] ^= 1;
    assert_eq!(reason(packed, LIMIT), "corrupt_compression");
}

#[test]
fn the_limit_holds_to_the_byte() {
    let zeros = vec![b' '; 300_000];
    for packed in [zeros.clone(), gzip(&zeros), zstd(&zeros)] {
        assert_eq!(reason(packed.clone(), 299_999), "object_too_large");
        assert_eq!(unpack(Bytes::from(packed), 300_000).unwrap().len(), 300_000);
    }
    assert_eq!(reason(gzip(b"x"), 0), "object_too_large");
    assert_eq!(unpack(Bytes::from(gzip(b"")), 0).unwrap().len(), 0);
}

#[test]
fn bytes_that_do_not_come_are_no_fault_of_the_object() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the line is dead"))
        }
    }
    let text = TEXT.repeat(1000);
    for packed in [text.clone(), gzip(&text), zstd(&text)] {
        let half = packed.len() / 2;
        let stored = Stored::stream(Box::new(Read::take(io::Cursor::new(packed), half as u64).chain(Broken)), 0);
        let mut unpacker = Unpacker::new(stored, limits(LIMIT)).unwrap();
        let error = unpacker.read(&mut Vec::new(), text.len()).unwrap_err();
        assert!(matches!(error, DecodeError::Read(_)), "{error}");
    }
}

#[test]
fn a_lying_size_is_only_a_hint() {
    let mut packed = gzip(TEXT);
    let at = packed.len() - 4;
    packed[at..].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(reason(packed, LIMIT), "corrupt_compression");
    let streamed = {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.write_all(TEXT).unwrap();
        encoder.finish().unwrap()
    };
    assert_eq!(unpacked(streamed), TEXT);
}

#[test]
fn a_forged_size_does_not_ask_for_memory() {
    // Header with the size in eight bytes, one last block of one byte. Source: RFC 8878, 3.1.1.1.
    let frame = |size: u64| {
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0b1110_0000];
        frame.extend_from_slice(&size.to_le_bytes());
        frame.extend_from_slice(&[1 << 3 | 1, 0, 0, b'x']);
        frame
    };
    assert_eq!(zstd_size_hint(&frame(1 << 45)), None);
    assert_eq!(zstd_size_hint(&frame(300)), Some(300));
    assert_eq!(reason(frame(1 << 24), u64::MAX), "corrupt_compression");
    assert_eq!(unpacked(frame(1)), b"x");
    let zeros = zstd::bulk::compress(&vec![0; 8 << 20], 3).unwrap();
    assert_eq!(zstd_size_hint(&zeros), Some(8 << 20));
}

#[test]
fn what_unpacks_to_too_many_times_its_size_is_noticed_however_it_is_read() {
    let blank = vec![b'\n'; 130 << 20];
    let ratio = |ratio_max| UnpackLimits { bytes_max: 1 << 30, ratio_max };
    for (packed, allowed) in [(gzip(&blank), 1_032), (zstd(&blank), 40_000)] {
        let read = |limits: UnpackLimits, step: usize| {
            let mut unpacker =
                Unpacker::new(Stored::stream(Box::new(packed.as_slice()), 0), limits).expect("it begins well");
            let (mut unpacked, mut len) = (Vec::new(), 0);
            loop {
                unpacked.clear();
                match unpacker.read(&mut unpacked, step) {
                    Ok(read) => len += read,
                    Err(DecodeError::Fault(fault)) => return Err((len, fault.to_string())),
                    Err(DecodeError::Read(error)) => panic!("{error}"),
                }
                if unpacked.len() < step {
                    return Ok(len);
                }
            }
        };
        for step in [5 << 20, 8 << 20, 200 << 20] {
            let (before, detail) = read(ratio(100), step).expect_err("a bomb");
            assert!(before < 64 << 20 && detail.contains("limits.unpacked_ratio_max is 100"), "{before} {detail}");
            assert_eq!(read(ratio(allowed), step), Ok(blank.len()));
        }
    }
    // as large as it is, what is not packed has no ratio
    let mut plain = Unpacker::new(Stored::stream(Box::new(blank.as_slice()), 0), ratio(1)).expect("it begins well");
    assert_eq!(plain.read(&mut Vec::new(), 1 << 30).expect("plain"), blank.len());
}
