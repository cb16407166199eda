//! Reads a TOML document key by key, and collects every fault instead of stopping at the first.
//!
//! A [`Section`] is one table. Its getters name the keys it knows; whatever else stands in the table is a fault when
//! the section is finished. What a getter was asked for is also remembered, so that a test can hold the manual
//! against it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use crate::fault::{Fault, Faults, Loaded, Place};
use crate::near;

/// What a getter found: the value, its key path, and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Found<T> {
    pub(crate) value: T,
    pub(crate) key: String,
    pub(crate) place: Place,
}

/// One file being read.
pub(crate) struct Reader<'a> {
    file: String,
    source: &'a str,
    line_starts: Vec<usize>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    faults: Vec<Noted>,
    places: BTreeMap<String, Place>,
    asked: BTreeSet<String>,
}

/// A fault, and whether it stays one when other parts of the file could not be parsed.
struct Noted {
    fault: Fault,
    certain: bool,
}

/// Reads `source` with `read`, and gives its value only when nothing at all is wrong.
pub(crate) fn read<T>(
    file: &str,
    source: &str,
    read: impl FnOnce(&mut Section<'_>) -> T,
) -> Result<(Loaded<T>, BTreeSet<String>), Faults> {
    read_titled(file, "the file", source, read)
}

/// [`read`], for a text that faults call `title`.
pub(crate) fn read_titled<T>(
    file: &str,
    title: &str,
    source: &str,
    read: impl FnOnce(&mut Section<'_>) -> T,
) -> Result<(Loaded<T>, BTreeSet<String>), Faults> {
    let (document, errors) = DeTable::parse_recoverable(source);
    let reader = Reader::new(file, source);
    let syntax = reader.syntax_faults(&errors);
    let mut root = Section::root(&reader, title, document.get_ref());
    let value = read(&mut root);
    root.finish();
    reader.conclude(value, syntax)
}

impl<'a> Reader<'a> {
    fn new(file: &str, source: &'a str) -> Self {
        let line_starts = std::iter::once(0).chain(source.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file: file.to_owned(), source, line_starts, state: RefCell::default() }
    }

    fn place(&self, offset: usize) -> Place {
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = self.line_starts[line - 1];
        let before = self.source.get(start..offset).unwrap_or_default();
        // A byte order mark is no character that anybody sees.
        Place { line, column: before.chars().filter(|c| *c != '\u{feff}').count() + 1 }
    }

    /// Notes a fault of a value that is there.
    pub(crate) fn fault(&self, key: &str, place: Place, message: impl Into<String>) {
        self.note(key, Some(place), message.into(), true);
    }

    /// Notes a fault that would not be one if an unreadable part of the file said something else.
    pub(crate) fn doubt(&self, key: &str, place: Option<Place>, message: impl Into<String>) {
        self.note(key, place, message.into(), false);
    }

    fn note(&self, key: &str, place: Option<Place>, message: String, certain: bool) {
        let fault = Fault { file: self.file.clone(), place, key: key.to_owned(), message };
        self.state.borrow_mut().faults.push(Noted { fault, certain });
    }

    /// Takes over a fault that was found outside the file, such as in the environment.
    pub(crate) fn take(&self, faults: Vec<Fault>) {
        self.state.borrow_mut().faults.extend(faults.into_iter().map(|fault| Noted { fault, certain: true }));
    }

    fn syntax_faults(&self, errors: &[toml::de::Error]) -> Vec<Fault> {
        let fault = |error: &toml::de::Error| {
            let span = error.span().unwrap_or_default();
            let (key, message) = match error.message() {
                "duplicate key" => (
                    shown_key(self.source.get(span.clone()).unwrap_or_default()),
                    "is written twice; keep one of the two".to_owned(),
                ),
                message => (String::new(), format!("this is not TOML: {message}")),
            };
            Fault { file: self.file.clone(), place: Some(self.place(span.start)), key, message }
        };
        errors.iter().map(fault).collect()
    }

    /// Where the text is no TOML, the rest is still told as far as it is certain: not what seems to be missing, nor
    /// what stands in a line that could not be read; nothing at all when a table's header is unreadable, as its keys
    /// then seem to belong to another table.
    fn conclude<T>(self, value: T, syntax: Vec<Fault>) -> Result<(Loaded<T>, BTreeSet<String>), Faults> {
        let State { faults, places, asked } = self.state.into_inner();
        if syntax.is_empty() && faults.is_empty() {
            return Ok((Loaded { value, file: self.file, places }, asked));
        }
        let unread: BTreeSet<usize> = syntax.iter().filter_map(|fault| fault.place).map(|place| place.line).collect();
        let is_header = |line: &usize| {
            let text = &self.source[self.line_starts[*line - 1]..];
            text.trim_start_matches([' ', '\t', '\u{feff}']).starts_with('[')
        };
        let lost = unread.iter().any(is_header);
        let tells = |noted: &Noted| {
            let on_unread = noted.fault.place.is_some_and(|place| unread.contains(&place.line));
            unread.is_empty() || (noted.certain && !lost && !on_unread)
        };
        let rest = faults.into_iter().filter(tells).map(|noted| noted.fault);
        Err(Faults::new(syntax.into_iter().chain(rest).collect()))
    }
}

/// One table of the file.
pub(crate) struct Section<'r> {
    reader: &'r Reader<'r>,
    /// The key path, such as `instance[0]`.
    path: String,
    /// The same without numbers and with `NAME` for names that the user chooses: what the manual calls it.
    generic: String,
    /// How the table is written, such as `[[instance]]`.
    title: String,
    place: Option<Place>,
    table: Option<&'r DeTable<'r>>,
    known: Vec<&'static str>,
}

impl<'r> Section<'r> {
    fn root(reader: &'r Reader<'r>, title: &str, table: &'r DeTable<'r>) -> Self {
        Self {
            reader,
            path: String::new(),
            generic: String::new(),
            title: title.to_owned(),
            place: None,
            table: Some(table),
            known: Vec::new(),
        }
    }

    /// The file that this is a table of.
    pub(crate) fn reader(&self) -> &'r Reader<'r> {
        self.reader
    }

    /// Where the table begins, if it is there.
    pub(crate) fn place(&self) -> Option<Place> {
        self.place
    }

    /// The key path of the table itself.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Whether the table holds `key`; asks nothing.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    fn join(&self, key: &str) -> String {
        join(&self.path, &shown_key(key))
    }

    /// A fault when `key` is not there.
    pub(crate) fn need(&self, key: &str, write: &str) {
        if !self.has(key) {
            self.reader.doubt(&self.join(key), self.place, format!("is missing; write `{write}`"));
        }
    }

    fn ask(&mut self, key: &'static str) -> Option<Found<&'r DeValue<'r>>> {
        self.known.push(key);
        self.reader.state.borrow_mut().asked.insert(join(&self.generic, key));
        let value = self.table?.get(key)?;
        Some(self.found(key, value))
    }

    fn found(&self, key: &str, value: &'r Spanned<DeValue<'r>>) -> Found<&'r DeValue<'r>> {
        let found = Found { value: value.get_ref(), key: self.join(key), place: self.reader.place(value.span().start) };
        self.reader.state.borrow_mut().places.insert(found.key.clone(), found.place);
        found
    }

    fn refuse(&self, found: &Found<&DeValue<'_>>, wanted: &str) {
        self.reader.fault(&found.key, found.place, format!("is {}; write {wanted}", kind(found.value)));
    }

    /// A text.
    pub(crate) fn text(&mut self, key: &'static str) -> Option<Found<String>> {
        let found = self.ask(key)?;
        let DeValue::String(text) = found.value else {
            self.refuse(&found, &format!("a text in quotes, as in `{key} = \"…\"`"));
            return None;
        };
        Some(Found { value: text.to_string(), key: found.key, place: found.place })
    }

    /// A text that `parse` understands; its error says what is wrong and what would be right.
    pub(crate) fn parsed<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Found<T>> {
        let found = self.text(key)?;
        self.keep(parse(&found.value), found.key, found.place)
    }

    fn keep<T>(&self, parsed: Result<T, String>, key: String, place: Place) -> Option<Found<T>> {
        match parsed {
            Ok(value) => Some(Found { value, key, place }),
            Err(message) => {
                self.reader.fault(&key, place, message);
                None
            }
        }
    }

    /// One of several words.
    pub(crate) fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<Found<T>> {
        self.parsed(key, |text| {
            if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
                return Ok(*value);
            }
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            let list = words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
            Err(match near::nearest(text, &words) {
                Some(word) => format!("{} is none of {list}; did you mean \"{word}\"?", quoted(text)),
                None => format!("{} is none of the words that stand here; write one of {list}", quoted(text)),
            })
        })
    }

    /// A whole number within `range`; `what` it is, for the fault.
    pub(crate) fn number(&mut self, key: &'static str, what: &str, range: RangeInclusive<u64>) -> Option<Found<u64>> {
        let found = self.ask(key)?;
        let (low, high) = (range.start(), range.end());
        let wanted = format!("a whole number from {low} to {high}, without quotes");
        let DeValue::Integer(integer) = found.value else {
            self.refuse(&found, &wanted);
            return None;
        };
        match whole(integer).and_then(|number| u64::try_from(number).ok()).filter(|number| range.contains(number)) {
            Some(value) => Some(Found { value, key: found.key, place: found.place }),
            None => {
                self.reader.fault(&found.key, found.place, format!("{integer} is not {what}; write {wanted}"));
                None
            }
        }
    }

    /// True or false.
    pub(crate) fn boolean(&mut self, key: &'static str) -> Option<Found<bool>> {
        let found = self.ask(key)?;
        let DeValue::Boolean(value) = found.value else {
            self.refuse(&found, "true or false, without quotes");
            return None;
        };
        Some(Found { value: *value, key: found.key, place: found.place })
    }

    /// A duration such as `"500ms"` within `range`; `why` says the reason of the bounds.
    pub(crate) fn duration(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Duration>,
        why: &str,
    ) -> Option<Found<Duration>> {
        let found = self.ask(key)?;
        let DeValue::String(text) = found.value else {
            self.refuse(&found, &format!("a number and its unit in quotes, as in `{key} = \"10s\"`"));
            return None;
        };
        let parsed = parse_duration(text).and_then(|value| {
            if range.contains(&value) {
                return Ok(value);
            }
            let (low, high) = (shown(*range.start()), shown(*range.end()));
            Err(format!("{} is not between {low} and {high}: {why}; write one that is", quoted(text)))
        });
        self.keep(parsed, found.key, found.place)
    }

    /// A list of texts that `parse` understands. None when one of them, or the list, is faulty.
    pub(crate) fn list<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<Found<T>>> {
        let found = self.ask(key)?;
        let DeValue::Array(array) = found.value else {
            self.refuse(&found, &format!("a list of texts, as in `{key} = [\"…\"]`"));
            return None;
        };
        if array.is_empty() {
            self.reader.fault(&found.key, found.place, "is an empty list; name at least one");
            return None;
        }
        let items: Vec<Option<Found<T>>> = array
            .iter()
            .enumerate()
            .map(|(index, value)| {
                let item = self.found(&format!("{key}[{index}]"), value);
                let DeValue::String(text) = item.value else {
                    self.refuse(&item, "a text in quotes");
                    return None;
                };
                self.keep(parse(text), item.key, item.place)
            })
            .collect();
        items.into_iter().collect()
    }

    /// Every entry of a table whose keys are the user's: texts, whole numbers or booleans, the latter as yes and no.
    pub(crate) fn settings(&mut self, key: &'static str) -> Vec<Found<(String, String)>> {
        let Some(section) = self.table(key) else { return Vec::new() };
        section.reader.state.borrow_mut().asked.insert(join(&section.generic, "NAME"));
        let entries = section.table.into_iter().flatten();
        let read = |(name, value): (&Spanned<_>, &'r Spanned<DeValue<'r>>)| {
            let name: &toml::de::DeString<'_> = name.get_ref();
            let found = section.found(name, value);
            let text = match found.value {
                DeValue::String(text) => text.to_string(),
                DeValue::Boolean(value) => if *value { "yes" } else { "no" }.to_owned(),
                DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str().to_owned(),
                _ => {
                    section.refuse(&found, "a text in quotes, a whole number, or true or false");
                    return None;
                }
            };
            Some(Found { value: (name.to_string(), text), key: found.key, place: found.place })
        };
        entries.filter_map(read).collect()
    }

    /// A table, if it is there.
    pub(crate) fn table(&mut self, key: &'static str) -> Option<Section<'r>> {
        let title = format!("[{}]", join(&self.generic, key));
        let found = self.ask(key)?;
        let generic = join(&self.generic, key);
        self.section(found, generic, title)
    }

    /// A table that counts as empty when it is not there.
    pub(crate) fn table_or_empty(&mut self, key: &'static str) -> Section<'r> {
        let generic = join(&self.generic, key);
        self.table(key).unwrap_or_else(|| Section {
            reader: self.reader,
            path: self.join(key),
            title: format!("[{generic}]"),
            generic,
            place: None,
            table: None,
            known: Vec::new(),
        })
    }

    /// Tables written `[[key]]`.
    pub(crate) fn tables(&mut self, key: &'static str) -> Vec<Section<'r>> {
        let Some(found) = self.ask(key) else { return Vec::new() };
        let generic = join(&self.generic, key);
        let title = format!("[[{generic}]]");
        let DeValue::Array(array) = found.value else {
            self.refuse(&found, &format!("`{title}`, with two brackets: there may be several"));
            return Vec::new();
        };
        let item = |(index, value)| {
            let found = self.found(&format!("{key}[{index}]"), value);
            self.section(found, generic.clone(), title.clone())
        };
        array.iter().enumerate().filter_map(item).collect()
    }

    /// Tables written `[key.NAME]`, with their names.
    pub(crate) fn named_tables(&mut self, key: &'static str) -> Vec<(Found<String>, Section<'r>)> {
        let Some(outer) = self.table(key) else { return Vec::new() };
        let generic = join(&outer.generic, "NAME");
        let title = format!("[{generic}]");
        outer.reader.state.borrow_mut().asked.insert(generic.clone());
        let entry = |(name, value): (&Spanned<toml::de::DeString<'r>>, _)| {
            let found = outer.found(name.get_ref(), value);
            let place = self.reader.place(name.span().start);
            let name = Found { value: name.get_ref().to_string(), key: found.key.clone(), place };
            Some((name, outer.section(found, generic.clone(), title.clone())?))
        };
        outer.table.into_iter().flatten().filter_map(entry).collect()
    }

    fn section(&self, found: Found<&'r DeValue<'r>>, generic: String, title: String) -> Option<Section<'r>> {
        let DeValue::Table(table) = found.value else {
            self.refuse(&found, &format!("a table, as in `{title}`"));
            return None;
        };
        let (reader, path) = (self.reader, found.key);
        Some(Section { reader, path, generic, title, place: Some(found.place), table: Some(table), known: Vec::new() })
    }

    /// Ends the reading of the table: every key that nobody asked for is a fault.
    pub(crate) fn finish(self) {
        let unknown = self.table.into_iter().flatten().filter(|(key, _)| !self.known.contains(&key.get_ref().as_ref()));
        for (key, _) in unknown {
            let remedy = match near::nearest(key.get_ref(), &self.known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("{} knows: {}", self.title, self.known.join(", ")),
            };
            let place = self.reader.place(key.span().start);
            self.reader.fault(&self.join(key.get_ref()), place, format!("there is no such key; {remedy}"));
        }
    }
}

/// A duration as the files write it: a whole number and `ms`, `s`, `m` or `h`.
///
/// # Errors
/// A sentence that quotes the text and says what to write.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let millis = number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    millis.map(Duration::from_millis).ok_or_else(|| {
        format!("{} is not a duration; write a whole number and ms, s, m or h, such as \"500ms\"", quoted(text))
    })
}

/// A duration in the largest unit that tells it whole.
pub(crate) fn shown(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1_000) => format!("{}s", millis / 1_000),
        _ => format!("{millis}ms"),
    }
}

/// A text of the file in quotes, fit for one line.
pub(crate) fn quoted(text: &str) -> String {
    /// Enough to recognise a value by, short enough for a line.
    const SHOWN_CHARS: usize = 60;
    let shown: String = text.chars().take(SHOWN_CHARS).collect();
    let rest = if shown.len() < text.len() { "…" } else { "" };
    format!("\"{}{rest}\"", shown.escape_debug())
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A key as TOML would have it written: in quotes when it holds more than letters, digits, `-` and `_` (or is an
/// index of ours).
fn shown_key(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "-_[]".contains(c);
    if !key.is_empty() && key.chars().all(bare) { key.to_owned() } else { quoted(key) }
}

fn whole(integer: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
