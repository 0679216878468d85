//! placeholder
use crate::Outcome;
pub(crate) fn main(_args: &[String]) -> Outcome {
    Err("not yet".to_owned())
}
