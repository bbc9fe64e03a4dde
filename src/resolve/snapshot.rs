//! An index as one file: its members, its table and its trees, with a checksum.
//!
//! # Contract
//! What is read from a snapshot finds and decides exactly as what it was written from. A file that was cut, changed or
//! written by another version of the scheme is refused.

use sha2::{Digest, Sha256};

use super::ResolveError;
use super::arroy_index::ArroyIndex;
use super::members::Members;
use super::normalize::SCHEME_VERSION;
use super::vectorize::{IdfTable, TABLE_ENTRIES};

const MAGIC: &[u8; 8] = b"sluiceER";
const CHECKSUM_BYTES: usize = 32;
const TABLE_BYTES: usize = (TABLE_ENTRIES + 1) * 4;

/// A member as it was when the index was made.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct IndexedMember {
    pub key: i64,
    pub natural_key: String,
    pub name: String,
}

/// Magic, scheme, length of the members' JSON, JSON, table, trees; then the SHA-256 of all that.
pub fn write_snapshot(
    listed: &[IndexedMember],
    members: &Members,
    index: &ArroyIndex,
) -> Result<Vec<u8>, ResolveError> {
    let json = serde_json::to_vec(listed).map_err(|error| ResolveError::Snapshot(error.to_string()))?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend(SCHEME_VERSION.to_le_bytes());
    bytes.extend((json.len() as u64).to_le_bytes());
    bytes.extend(json);
    bytes.extend(members.table().to_bytes());
    bytes.extend(index.to_bytes()?);
    let checksum = Sha256::digest(&bytes);
    bytes.extend(checksum);
    Ok(bytes)
}

/// What a snapshot holds; the index in a folder of its own under `parent`.
pub fn read_snapshot(
    bytes: &[u8],
    parent: &std::path::Path,
) -> Result<(Vec<IndexedMember>, Members, ArroyIndex), ResolveError> {
    let refused = |problem: &str| ResolveError::Snapshot(problem.to_owned());
    let (content, checksum) =
        bytes.split_at_checked(bytes.len().saturating_sub(CHECKSUM_BYTES)).ok_or_else(|| refused("it is cut"))?;
    if Sha256::digest(content).as_slice() != checksum {
        return Err(refused("its checksum is another"));
    }
    let rest = content.strip_prefix(MAGIC).ok_or_else(|| refused("it is none"))?;
    let (scheme, rest) = rest.split_first_chunk::<4>().ok_or_else(|| refused("it is cut"))?;
    if u32::from_le_bytes(*scheme) != SCHEME_VERSION {
        return Err(refused("it was written by another version"));
    }
    let (length, rest) = rest.split_first_chunk::<8>().ok_or_else(|| refused("it is cut"))?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| refused("it is cut"))?;
    let (json, rest) = rest.split_at_checked(length).ok_or_else(|| refused("it is cut"))?;
    let (table, trees) = rest.split_at_checked(TABLE_BYTES).ok_or_else(|| refused("it is cut"))?;
    let listed: Vec<IndexedMember> = serde_json::from_slice(json).map_err(|_| refused("its members cannot be read"))?;
    let table = IdfTable::from_bytes(table)?;
    let members = Members::with_table(table, listed.iter().map(|member| (member.key, member.name.as_str())));
    let index = ArroyIndex::from_bytes(trees, &members, parent)?;
    Ok((listed, members, index))
}

#[cfg(test)]
mod tests {
    use super::super::decide::decide_all;
    use super::super::synthetic::catalogue;
    use super::*;

    #[test]
    fn what_is_read_decides_as_what_was_written_and_what_was_changed_is_refused() {
        let pairs = catalogue(300, 60);
        let each = pairs.reference.iter().enumerate();
        let listed: Vec<IndexedMember> = each
            .map(|(key, name)| IndexedMember { key: key as i64, natural_key: format!("p-{key}"), name: name.clone() })
            .collect();
        let members = Members::new(listed.iter().map(|member| (member.key, member.name.as_str())));
        let parent = std::env::temp_dir();
        let index = ArroyIndex::build(&members, &parent).expect("builds");
        let bytes = write_snapshot(&listed, &members, &index).expect("writes");
        let (read, read_members, read_index) = read_snapshot(&bytes, &parent).expect("reads");
        assert_eq!(read, listed);
        let texts: Vec<&str> = pairs.queries.iter().map(String::as_str).collect();
        let decisions = decide_all(&members, &index, &texts, 1).expect("decides");
        assert_eq!(decide_all(&read_members, &read_index, &texts, 3).expect("decides"), decisions);
        let mut changed = bytes.clone();
        changed[bytes.len() / 2] ^= 1;
        for broken in [&changed[..], &bytes[..bytes.len() - 1], &bytes[..20], b""] {
            assert!(matches!(read_snapshot(broken, &parent), Err(ResolveError::Snapshot(_))));
        }
    }
}
