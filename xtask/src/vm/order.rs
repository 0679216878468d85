//! In which order the guest runs its tests: those that take long first, so that none of them is left alone at the
//! end while the other processors have nothing to do.

use super::protocol::Test;

/// Tests that take more than ten seconds under emulation, the longest first (`cargo xtask vm` prints the slowest).
const LONGEST: &[&str] = &[
    "systemd::vm_cgroup_persists_through_a_service_and_a_daemon_reload",
    "systemd::vm_limit_a_command_in_a_group_a_scope_and_a_service",
    "systemd::vm_limit_an_ordinary_user_is_limited_by_his_own_systemd",
    "view::root_a_users_container_is_known_where_proc_hides_processes",
    "vm_lab_systemd_run",
    "cgroup::vm_cgroup_limits_hold_and_pressure_is_shown",
    "cgroup::vm_cgroup_words_and_files_of_both_versions_are_set",
    "cgroup::vm_cgroup_a_group_has_processes_or_gives_controllers_to_its_children",
    "insight::vm_capabilities_are_learned_and_audited_without_a_tracepoint",
    "vm_lab_cgroup_v2_memory",
    "vm_lab_cgroup_v2_cpu",
];

/// The longest first; the others stay in their order.
pub(super) fn longest_first(tests: &mut [Test]) {
    tests.sort_by_key(|test| rank(&test.name));
}

fn rank(name: &str) -> usize {
    LONGEST.iter().position(|long| *long == name).unwrap_or(LONGEST.len())
}

/// Names in the list that no test has any more.
pub(super) fn gone(tests: &[Test]) -> Vec<&'static str> {
    LONGEST.iter().copied().filter(|long| tests.iter().all(|test| test.name != *long)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_ones_come_first_and_a_name_without_a_test_is_told() {
        let test = |name: &str| Test { binary: "/t/deps/vm-1".into(), name: name.into(), package_dir: "/p".into() };
        let mut all = [test("short"), test(LONGEST[1]), test("other"), test(LONGEST[0])];
        longest_first(&mut all);
        let names: Vec<&str> = all.iter().map(|test| test.name.as_str()).collect();
        assert_eq!(names, [LONGEST[0], LONGEST[1], "short", "other"]);
        assert_eq!(gone(&all), LONGEST[2..]);
    }
}
