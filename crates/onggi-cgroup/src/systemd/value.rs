//! Values of unit properties: what D-Bus calls a variant (D-Bus specification, "Type system").

use std::fmt;

use serde::{Deserialize, Serialize};

/// A typed value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// `b`.
    Bool(bool),
    /// `y`.
    Byte(u8),
    /// `n`.
    I16(i16),
    /// `q`.
    U16(u16),
    /// `i`.
    I32(i32),
    /// `u`.
    U32(u32),
    /// `x`.
    I64(i64),
    /// `t`.
    U64(u64),
    /// `d`.
    F64(f64),
    /// `s`.
    Str(String),
    /// `o`.
    ObjectPath(String),
    /// `g`.
    Signature(String),
    /// `a` and the signature of its elements, which an empty array needs.
    Array(String, Vec<Value>),
    /// `( )`.
    Struct(Vec<Value>),
    /// `v`.
    Variant(Box<Value>),
}

impl Value {
    /// A text.
    pub(super) fn str(text: impl Into<String>) -> Self {
        Self::Str(text.into())
    }

    /// The type, as D-Bus writes it.
    pub(super) fn signature(&self) -> String {
        match self {
            Self::Bool(_) => "b".into(),
            Self::Byte(_) => "y".into(),
            Self::I16(_) => "n".into(),
            Self::U16(_) => "q".into(),
            Self::I32(_) => "i".into(),
            Self::U32(_) => "u".into(),
            Self::I64(_) => "x".into(),
            Self::U64(_) => "t".into(),
            Self::F64(_) => "d".into(),
            Self::Str(_) => "s".into(),
            Self::ObjectPath(_) => "o".into(),
            Self::Signature(_) => "g".into(),
            Self::Array(element, _) => format!("a{element}"),
            Self::Struct(fields) => format!("({})", fields.iter().map(Self::signature).collect::<String>()),
            Self::Variant(_) => "v".into(),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, items: &[Self]| {
            for (n, item) in items.iter().enumerate() {
                write!(f, "{}{item}", if n == 0 { "" } else { " " })?;
            }
            Ok(())
        };
        match self {
            Self::Bool(v) => f.write_str(if *v { "yes" } else { "no" }),
            Self::Byte(v) => write!(f, "{v:#04x}"),
            Self::I16(v) => v.fmt(f),
            Self::U16(v) => v.fmt(f),
            Self::I32(v) => v.fmt(f),
            Self::U32(v) => v.fmt(f),
            Self::I64(v) => v.fmt(f),
            Self::U64(u64::MAX) => f.write_str("infinity"),
            Self::U64(v) => v.fmt(f),
            Self::F64(v) => v.fmt(f),
            Self::Str(v) | Self::ObjectPath(v) | Self::Signature(v) => f.write_str(v),
            Self::Array(_, items) | Self::Struct(items) => list(f, items),
            Self::Variant(v) => v.fmt(f),
        }
    }
}
