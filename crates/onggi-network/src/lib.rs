//! onggi-network
