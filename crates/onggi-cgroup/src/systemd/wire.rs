//! D-Bus messages as bytes (D-Bus specification, "Message Protocol"): little-endian only when written, both
//! orders when read.
//!
//! Everything that is read has a bound and is checked: lengths against what is there, nesting against
//! [`MAX_DEPTH`], texts for UTF-8. A message that breaks a rule is an error, never a guess.

use super::value::Value;

/// Longest message that is read or written; systemd's answers and our properties are a thousandth of it.
pub(super) const MAX_MESSAGE: usize = 1 << 20;
/// Deepest nesting of containers.
const MAX_DEPTH: usize = 16;
/// Bytes of a header without its fields.
pub(super) const FIXED: usize = 16;

/// Why bytes are no message, or a value none of its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed D-Bus message: {0}")]
pub struct Malformed(&'static str);

type Result<T> = std::result::Result<T, Malformed>;

/// Kind of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Call,
    Return,
    Error,
    Signal,
    /// To be ignored, as the specification demands.
    Unknown,
}

/// A message, with the header fields that matter here.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) serial: u32,
    pub(super) reply_to: Option<u32>,
    pub(super) path: Option<String>,
    pub(super) interface: Option<String>,
    pub(super) member: Option<String>,
    pub(super) error: Option<String>,
    pub(super) destination: Option<String>,
    pub(super) sender: Option<String>,
    pub(super) body: Vec<Value>,
}

impl Message {
    pub(super) fn call(serial: u32, destination: &str, path: &str, interface: &str, member: &str) -> Self {
        let text = |t: &str| Some(t.to_owned());
        Self {
            kind: Kind::Call,
            serial,
            reply_to: None,
            path: text(path),
            interface: text(interface),
            member: text(member),
            error: None,
            destination: text(destination).filter(|d| !d.is_empty()),
            sender: None,
            body: Vec::new(),
        }
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let mut body = Encoder::default();
        self.body.iter().for_each(|v| body.value(v));
        let signature: String = self.body.iter().map(Value::signature).collect();
        let kind = match self.kind {
            Kind::Call => 1,
            Kind::Return => 2,
            Kind::Error => 3,
            Kind::Signal => 4,
            Kind::Unknown => return Err(Malformed("its kind")),
        };
        let mut out = Encoder(vec![b'l', kind, 0, 1]);
        out.u32(body.0.len() as u32);
        out.u32(self.serial);
        out.array(8, |out| {
            let mut field = |code: u8, value: Option<Value>| {
                if let Some(value) = value {
                    out.pad(8);
                    out.0.push(code);
                    out.variant(&value);
                }
            };
            field(1, self.path.clone().map(Value::ObjectPath));
            field(2, self.interface.clone().map(Value::Str));
            field(3, self.member.clone().map(Value::Str));
            field(4, self.error.clone().map(Value::Str));
            field(5, self.reply_to.map(Value::U32));
            field(6, self.destination.clone().map(Value::Str));
            field(7, self.sender.clone().map(Value::Str));
            field(8, Some(signature.clone()).filter(|s| !s.is_empty()).map(Value::Signature));
        });
        out.pad(8);
        out.0.extend(body.0);
        let short = signature.len() <= usize::from(u8::MAX);
        if out.0.len() <= MAX_MESSAGE && short { Ok(out.0) } else { Err(Malformed("it is too long")) }
    }

    /// How long the message is whose first [`FIXED`] bytes these are.
    pub(super) fn length(head: &[u8; FIXED]) -> Result<usize> {
        let mut d = Decoder::new(head)?;
        d.at = 4;
        let body = d.u32()? as usize;
        d.u32()?;
        let fields = d.u32()? as usize;
        if body > MAX_MESSAGE || fields > MAX_MESSAGE {
            return Err(Malformed("it is too long"));
        }
        let total = FIXED + fields.next_multiple_of(8) + body;
        if total > MAX_MESSAGE { Err(Malformed("it is too long")) } else { Ok(total) }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut d = Decoder::new(bytes)?;
        let kind = match bytes.get(1) {
            Some(1) => Kind::Call,
            Some(2) => Kind::Return,
            Some(3) => Kind::Error,
            Some(4) => Kind::Signal,
            Some(0) | None => return Err(Malformed("its kind")),
            Some(_) => Kind::Unknown,
        };
        d.at = 4;
        let length = d.u32()? as usize;
        let serial = d.u32()?;
        let mut message = Self { kind, serial, ..Self::call(0, "", "", "", "") };
        (message.path, message.interface, message.member) = (None, None, None);
        let mut signature = String::new();
        let Value::Array(_, fields) = d.value("a(yv)", 0)?.0 else { return Err(Malformed("its header")) };
        for field in fields {
            message.take(field, &mut signature)?;
        }
        d.pad(8)?;
        if d.bytes.len() != d.at + length {
            return Err(Malformed("the length of its body"));
        }
        let mut rest = signature.as_str();
        while !rest.is_empty() {
            let (value, after) = d.value(rest, 0)?;
            message.body.push(value);
            rest = after;
        }
        if d.at == d.bytes.len() { Ok(message) } else { Err(Malformed("bytes after its body")) }
    }

    fn take(&mut self, field: Value, signature: &mut String) -> Result<()> {
        let Value::Struct(pair) = field else { return Err(Malformed("its header")) };
        let [Value::Byte(code), Value::Variant(value)] = pair.as_slice() else { return Err(Malformed("its header")) };
        match (code, value.as_ref()) {
            (1, Value::ObjectPath(v)) => self.path = Some(v.clone()),
            (2, Value::Str(v)) => self.interface = Some(v.clone()),
            (3, Value::Str(v)) => self.member = Some(v.clone()),
            (4, Value::Str(v)) => self.error = Some(v.clone()),
            (5, Value::U32(v)) => self.reply_to = Some(*v),
            (6, Value::Str(v)) => self.destination = Some(v.clone()),
            (7, Value::Str(v)) => self.sender = Some(v.clone()),
            (8, Value::Signature(v)) => signature.clone_from(v),
            (1..=8, _) => return Err(Malformed("the type of a header field")),
            _ => {}
        }
        Ok(())
    }
}

#[derive(Default)]
struct Encoder(Vec<u8>);

impl Encoder {
    fn pad(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number<const N: usize>(&mut self, bytes: [u8; N]) {
        self.pad(N);
        self.0.extend(bytes);
    }

    fn u32(&mut self, n: u32) {
        self.number(n.to_le_bytes());
    }

    fn string(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn variant(&mut self, value: &Value) {
        self.signature(&value.signature());
        self.value(value);
    }

    /// The length is that of the elements, without the padding before the first.
    fn array(&mut self, align: usize, elements: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length_at = self.0.len() - 4;
        self.pad(align);
        let begin = self.0.len();
        elements(self);
        let length = (self.0.len() - begin) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Bool(v) => self.u32(u32::from(*v)),
            Value::Byte(v) => self.0.push(*v),
            Value::I16(v) => self.number(v.to_le_bytes()),
            Value::U16(v) => self.number(v.to_le_bytes()),
            Value::I32(v) => self.number(v.to_le_bytes()),
            Value::U32(v) => self.number(v.to_le_bytes()),
            Value::I64(v) => self.number(v.to_le_bytes()),
            Value::U64(v) => self.number(v.to_le_bytes()),
            Value::F64(v) => self.number(v.to_le_bytes()),
            Value::Str(v) | Value::ObjectPath(v) => self.string(v),
            Value::Signature(v) => self.signature(v),
            Value::Array(element, items) => {
                self.array(alignment(element), |out| items.iter().for_each(|v| out.value(v)));
            }
            Value::Struct(fields) => {
                self.pad(8);
                fields.iter().for_each(|v| self.value(v));
            }
            Value::Variant(v) => self.variant(v),
        }
    }
}

fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'n' | b'q') => 2,
        Some(b'b' | b'i' | b'u' | b's' | b'o' | b'a' | b'h') => 4,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 1,
    }
}

/// The first complete type of a signature and what follows it.
pub(super) fn split(signature: &str) -> Result<(&str, &str)> {
    fn end(s: &[u8], at: usize, depth: usize) -> Result<usize> {
        if depth > MAX_DEPTH {
            return Err(Malformed("its types are nested too deeply"));
        }
        match s.get(at) {
            Some(b'a') => end(s, at + 1, depth + 1),
            Some(b'(') => {
                let mut next = at + 1;
                while s.get(next) != Some(&b')') {
                    next = end(s, next, depth + 1)?;
                }
                if next == at + 1 { Err(Malformed("an empty structure")) } else { Ok(next + 1) }
            }
            // A dictionary entry is read as a structure: their bytes are the same.
            Some(b'{') => {
                let value = end(s, end(s, at + 1, depth + 1)?, depth + 1)?;
                if s.get(value) == Some(&b'}') { Ok(value + 1) } else { Err(Malformed("a dictionary")) }
            }
            Some(b'y' | b'b' | b'n' | b'q' | b'i' | b'u' | b'x' | b't' | b'd' | b's' | b'o' | b'g' | b'v') => {
                Ok(at + 1)
            }
            _ => Err(Malformed("an unknown type")),
        }
    }
    let at = end(signature.as_bytes(), 0, 0)?;
    // Every byte up to there is ASCII.
    Ok(signature.split_at(at))
}

struct Decoder<'b> {
    bytes: &'b [u8],
    at: usize,
    big_endian: bool,
}

impl<'b> Decoder<'b> {
    fn new(bytes: &'b [u8]) -> Result<Self> {
        let big_endian = match bytes.first() {
            Some(b'l') => false,
            Some(b'B') => true,
            _ => return Err(Malformed("its byte order")),
        };
        if bytes.get(3) != Some(&1) {
            return Err(Malformed("its protocol version"));
        }
        Ok(Self { bytes, at: 0, big_endian })
    }

    fn take(&mut self, n: usize) -> Result<&'b [u8]> {
        let end = self.at.checked_add(n).ok_or(Malformed("a length"))?;
        let slice = self.bytes.get(self.at..end).ok_or(Malformed("it ends too early"))?;
        self.at = end;
        Ok(slice)
    }

    fn pad(&mut self, to: usize) -> Result<()> {
        let padding = self.at.next_multiple_of(to) - self.at;
        if self.take(padding)?.iter().any(|b| *b != 0) { Err(Malformed("its padding")) } else { Ok(()) }
    }

    /// A number of `N` bytes, in little-endian order.
    fn number<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.pad(N)?;
        let mut bytes: [u8; N] = self.take(N)?.try_into().map_err(|_| Malformed("it ends too early"))?;
        if self.big_endian {
            bytes.reverse();
        }
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        self.number().map(u32::from_le_bytes)
    }

    fn text(&mut self, length: usize) -> Result<String> {
        let bytes = self.take(length)?;
        if self.take(1)? != [0] || bytes.contains(&0) {
            return Err(Malformed("the end of a text"));
        }
        String::from_utf8(bytes.to_vec()).map_err(|_| Malformed("a text that is not UTF-8"))
    }

    fn string(&mut self) -> Result<String> {
        let length = self.u32()? as usize;
        self.text(length)
    }

    fn signature(&mut self) -> Result<String> {
        let length = usize::from(self.take(1)?[0]);
        self.text(length)
    }

    /// A value of the first type of `signature`, and the types after it.
    fn value<'s>(&mut self, signature: &'s str, depth: usize) -> Result<(Value, &'s str)> {
        if depth > MAX_DEPTH {
            return Err(Malformed("its values are nested too deeply"));
        }
        let (this, rest) = split(signature)?;
        let value = match this.as_bytes()[0] {
            b'y' => Value::Byte(self.take(1)?[0]),
            b'b' => match self.u32()? {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                _ => return Err(Malformed("a truth value")),
            },
            b'n' => Value::I16(i16::from_le_bytes(self.number()?)),
            b'q' => Value::U16(u16::from_le_bytes(self.number()?)),
            b'i' => Value::I32(i32::from_le_bytes(self.number()?)),
            b'u' => Value::U32(self.u32()?),
            b'x' => Value::I64(i64::from_le_bytes(self.number()?)),
            b't' => Value::U64(u64::from_le_bytes(self.number()?)),
            b'd' => Value::F64(f64::from_le_bytes(self.number()?)),
            b's' => Value::Str(self.string()?),
            b'o' => Value::ObjectPath(self.string()?),
            b'g' => Value::Signature(self.signature()?),
            b'v' => {
                let inner = self.signature()?;
                match self.value(&inner, depth + 1)? {
                    (value, "") => Value::Variant(Box::new(value)),
                    _ => return Err(Malformed("a variant of several values")),
                }
            }
            b'a' => self.array(&this[1..], depth)?,
            _ => self.structure(&this[1..this.len() - 1], depth)?,
        };
        Ok((value, rest))
    }

    fn array(&mut self, element: &str, depth: usize) -> Result<Value> {
        let length = self.u32()? as usize;
        self.pad(alignment(element))?;
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len()).ok_or(Malformed("a length"))?;
        let mut items = Vec::new();
        while self.at < end {
            items.push(self.value(element, depth + 1)?.0);
        }
        if self.at == end { Ok(Value::Array(element.to_owned(), items)) } else { Err(Malformed("a length")) }
    }

    fn structure(&mut self, fields: &str, depth: usize) -> Result<Value> {
        self.pad(8)?;
        let (mut values, mut rest) = (Vec::new(), fields);
        while !rest.is_empty() {
            let (value, after) = self.value(rest, depth + 1)?;
            values.push(value);
            rest = after;
        }
        Ok(Value::Struct(values))
    }
}
