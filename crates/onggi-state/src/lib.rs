//! onggi-state
