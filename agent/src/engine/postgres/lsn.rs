//! A place in the log, as PostgreSQL writes it: two halves in hexadecimal, `0/3000148`. It is a number of bytes.

/// Writes it.
pub(super) fn text(at: u64) -> String {
    format!("{:X}/{:X}", at >> 32, at & 0xffff_ffff)
}

/// Reads it; nothing when it is none.
pub(super) fn parse(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let part = |text: &str| {
        // As PostgreSQL reads it; `from_str_radix` alone would take a sign, and any number of zeros.
        let hexadecimal = (1..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
        if hexadecimal { u32::from_str_radix(text, 16).ok() } else { None }
    };
    Some(u64::from(part(high)?) << 32 | u64::from(part(low)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_is_written() {
        for (at, written) in
            [(0, "0/0"), (0x300_0148, "0/3000148"), (0x1_0a00_0000, "1/A000000"), (u64::MAX, "FFFFFFFF/FFFFFFFF")]
        {
            assert_eq!((text(at).as_str(), parse(written)), (written, Some(at)));
        }
        for nonsense in ["", "/", "1/", "/1", "1", "+1/0", "0/1_0", "123456789/0", "000000001/0", "0/0/0", "g/0"] {
            assert_eq!(parse(nonsense), None, "{nonsense}");
        }
    }
}
