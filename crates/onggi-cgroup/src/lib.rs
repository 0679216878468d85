//! onggi-cgroup
