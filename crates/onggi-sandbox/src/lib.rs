//! onggi-sandbox
