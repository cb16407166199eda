//! What holds for any bytes, valid or not: the fuzz targets of the scanner, run on random input by the tests as well.

#![allow(clippy::expect_used, reason = "a panic is what a fuzz target reports")]

use super::commands::Commands;
use super::inline;
use super::scan::{FoundReply, FoundRequest, Malformed, Piece, ReplyScan, RequestScan};
use super::view::{Reply, Request};

/// Where frames end in some bytes, and what is wrong with what follows the last of them.
type Ends = (Vec<usize>, Option<Malformed>);

/// Requests end at the same bytes in whatever pieces they arrive, and say the same again when they are written anew.
///
/// # Panics
/// When that does not hold.
pub fn requests(data: &[u8]) {
    let (ends, fault) = request_ends(data, data.len());
    let mut start = 0;
    for end in &ends {
        request(&data[start..*end]);
        start = *end;
    }
    for piece in pieces(data) {
        assert_eq!(request_ends(data, piece), (ends.clone(), fault), "in pieces of {piece}");
    }
    let first = ends.first().map(|end| &data[..*end]).filter(|first| first.starts_with(b"*"));
    for piece in pieces(data) {
        let Some(first) = first else { break };
        for begun in 0..first.len().min(64) {
            let mut scan = RequestScan::default();
            if scan.scan(&first[..begun]) == Ok(FoundRequest::Half) && !scan.is_fresh() {
                follow(data, first.len(), piece, |bytes| scan.follow(bytes));
            }
        }
    }
}

/// Replies end at the same bytes in whatever pieces they arrive, and can be looked into.
///
/// # Panics
/// When that does not hold.
pub fn replies(data: &[u8]) {
    let (ends, fault) = reply_ends(data, data.len());
    let mut start = 0;
    for end in &ends {
        reply(&data[start..*end]);
        start = *end;
    }
    for piece in pieces(data) {
        assert_eq!(reply_ends(data, piece), (ends.clone(), fault), "in pieces of {piece}");
        let Some(first) = ends.first() else { continue };
        for begun in 0..(*first).min(64) {
            let mut scan = ReplyScan::default();
            assert_eq!(scan.scan(&data[..begun]), Ok(FoundReply::Half));
            follow(data, *first, piece, |bytes| scan.follow(bytes));
        }
    }
    let _ = Commands::read(Reply::new(&data[..ends.first().copied().unwrap_or_default()]));
}

/// Byte by byte, and in an uneven size that the bytes themselves choose.
fn pieces(data: &[u8]) -> [usize; 2] {
    [1, 2 + data.iter().map(|byte| usize::from(*byte)).sum::<usize>() % 29]
}

fn request_ends(data: &[u8], piece: usize) -> Ends {
    let mut scan = RequestScan::default();
    ends(data, piece, |bytes| match scan.scan(bytes)? {
        FoundRequest::Whole(len) | FoundRequest::Inline(len) | FoundRequest::Empty(len) => {
            assert!(scan.is_fresh());
            Ok(Some(len))
        }
        FoundRequest::Half | FoundRequest::Big => Ok(None),
    })
}

fn reply_ends(data: &[u8], piece: usize) -> Ends {
    let mut scan = ReplyScan::default();
    ends(data, piece, |bytes| match scan.scan(bytes)? {
        FoundReply::Whole(len) => Ok(Some(len)),
        FoundReply::Half | FoundReply::Big => Ok(None),
    })
}

/// Shows the data as they grow by a piece at a time.
fn ends(data: &[u8], piece: usize, mut scan: impl FnMut(&[u8]) -> Result<Option<usize>, Malformed>) -> Ends {
    let (mut ends, mut start, mut here) = (Vec::new(), 0, 0);
    while here < data.len() {
        here = data.len().min(here + piece);
        loop {
            match scan(&data[start..here]) {
                Err(fault) => return (ends, Some(fault)),
                Ok(None) => break,
                Ok(Some(len)) => {
                    assert!(len > 0 && start + len <= here, "{len} bytes of {}", here - start);
                    start += len;
                    ends.push(start);
                }
            }
        }
    }
    (ends, None)
}

/// The pieces of a frame that is passed on while it arrives make up the frame.
fn follow(data: &[u8], end: usize, piece: usize, mut scan: impl FnMut(&[u8]) -> Result<Piece, Malformed>) {
    let (mut taken, mut here) = (0, 0);
    loop {
        assert!(here < data.len(), "the frame of {end} bytes is at hand");
        here = data.len().min(here + piece);
        let Piece { len, last } = scan(&data[taken..here]).expect("the frame is well formed");
        taken += len;
        assert!(taken <= end && last == (taken == end), "{taken} of {end} were passed on");
        assert!(here - taken < 32 || last, "no more than a length is kept back");
        if last {
            return;
        }
    }
}

fn request(bytes: &[u8]) {
    let array = match bytes.first() {
        Some(b'*') => bytes.to_vec(),
        _ => match inline::to_array(bytes) {
            Ok(Some(array)) => array,
            Ok(None) | Err(_) => return,
        },
    };
    let request = Request::new(&array);
    let mut again = format!("*{}\r\n", request.count()).into_bytes();
    for argument in request.arguments() {
        again.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        again.extend_from_slice(argument);
        again.extend_from_slice(b"\r\n");
    }
    match request.arguments().next() {
        // What asks for nothing (`*0`, `*-1`) has no one form.
        None => assert!(request.count() == 0),
        Some(name) => {
            assert_eq!(again, array);
            assert_eq!(request.name(), name);
            assert_eq!(RequestScan::default().scan(&array), Ok(FoundRequest::Whole(array.len())));
        }
    }
    let mut commands = Commands::built_in();
    let class = commands.class(request, Some(16));
    assert_eq!(commands.class(request, Some(16)), class, "the second time");
}

fn reply(bytes: &[u8]) {
    let reply = Reply::new(bytes);
    let value = match reply.kind() {
        b'+' | b'-' | b':' | b'$' | b'!' | b'=' | b'_' | b'#' | b',' | b'(' => true,
        b'*' | b'~' | b'>' | b'%' => false,
        other => panic!("kind {other}"),
    };
    assert!(value || reply.text().is_none());
    let items: usize = reply.items().map(|item| usize::from(item.text().is_some())).sum();
    assert!(!value || items == 0);
    let _ = (reply.integer(), reply.is_null(), reply.published());
}

#[cfg(test)]
mod tests {
    fn seeds(of: &str, target: fn(&[u8])) {
        let folder = format!("{}/../fuzz/seeds/{of}", env!("CARGO_MANIFEST_DIR"));
        let files = std::fs::read_dir(folder).expect("seeds").map(|entry| entry.expect("a seed").path());
        assert_ne!(files.map(|file| target(&std::fs::read(file).expect("a seed"))).count(), 0);
    }

    #[test]
    fn seeds_of_requests() {
        seeds("requests", super::requests);
    }

    #[test]
    fn seeds_of_replies() {
        seeds("replies", super::replies);
    }
}
