//! onggi-engine
