//! What the fuzz targets share: decisions drawn from the input, the parts of a message, places of octets.

mod draw;
mod parts;

pub use draw::Draw;
pub use parts::{Parts, is_within, values_of};
