//! onggi-storage
