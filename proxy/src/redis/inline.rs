//! Inline requests: a line of words, for people at a terminal. They are turned into the array that they stand for, so
//! that everything behind the scanner knows one form only.

use super::scan::Malformed;

/// The request that a line stands for, by Redis' rules for quotes; nothing for a line without words.
///
/// # Errors
/// When the quotes do not match or a NUL stands in it.
pub(crate) fn to_array(line: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
    if line.contains(&0) {
        return Err(Malformed::Nul);
    }
    let mut words = Vec::new();
    let mut rest = line;
    while let Some(start) = rest.iter().position(|byte| !is_space(*byte)) {
        let (word, behind) = word(&rest[start..])?;
        words.push(word);
        rest = behind;
    }
    if words.is_empty() {
        return Ok(None);
    }
    let mut request = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(&word);
        request.extend_from_slice(b"\r\n");
    }
    Ok(Some(request))
}

/// The word that begins the line, and what follows it.
fn word(line: &[u8]) -> Result<(Vec<u8>, &[u8]), Malformed> {
    let mut word = Vec::new();
    let mut rest = line;
    loop {
        match rest {
            [] => return Ok((word, rest)),
            [b' ' | b'\n' | b'\r' | b'\t', ..] => return Ok((word, rest)),
            [quote @ (b'"' | b'\''), quoted @ ..] => {
                rest =
                    if *quote == b'"' { double_quoted(quoted, &mut word)? } else { single_quoted(quoted, &mut word)? };
                // A closing quote ends the word: nothing but a space may follow.
                return match rest {
                    [next, ..] if !is_space(*next) => Err(Malformed::Quotes),
                    _ => Ok((word, rest)),
                };
            }
            [byte, behind @ ..] => {
                word.push(*byte);
                rest = behind;
            }
        }
    }
}

/// What follows the closing quote; the text goes to `word`.
fn double_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], Malformed> {
    loop {
        let (byte, behind) = match rest {
            [] => return Err(Malformed::Quotes),
            [b'"', behind @ ..] => return Ok(behind),
            [b'\\', b'x', high, low, behind @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (hex(*high) << 4 | hex(*low), behind)
            }
            [b'\\', escaped, behind @ ..] => (unescaped(*escaped), behind),
            [byte, behind @ ..] => (*byte, behind),
        };
        word.push(byte);
        rest = behind;
    }
}

/// What follows the closing quote; the text goes to `word`.
fn single_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], Malformed> {
    loop {
        let (byte, behind) = match rest {
            [] => return Err(Malformed::Quotes),
            [b'\'', behind @ ..] => return Ok(behind),
            [b'\\', b'\'', behind @ ..] => (b'\'', behind),
            [byte, behind @ ..] => (*byte, behind),
        };
        word.push(byte);
        rest = behind;
    }
}

fn unescaped(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// As C's `isspace`: `u8::is_ascii_whitespace` leaves out the vertical tab.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}
