//! Sizes (`512m`), CPUs (`1.5`).
