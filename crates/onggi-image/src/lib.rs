//! onggi-image
