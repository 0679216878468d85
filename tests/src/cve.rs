//! Which test shows what about which advisory: read by the suite `tests/tests/security`, which checks that the table is
//! complete, and by `cargo xtask test --cve`.
//!
//! A test of that suite is its name without its module. `PROGRAM/PART` is every test of another [`PROGRAMS`] entry whose
//! name contains PART, at least one.

/// Every id that must be covered, written down a second time on purpose: a row cannot get lost unnoticed.
pub const REQUIRED: &str = "2015-1331 2015-1334 2015-1335 2016-3697 2016-9962 2017-5985 2018-6556 2022-47952 2026-39402 \
    2019-5736 2019-16884 2019-19921 2023-27561 2021-30465 2021-43784 GHSA-g54h-m393-cpwq 2022-29162 2022-27650 \
    2022-24769 2022-27649 2022-27651 2022-27652 2025-27612 2023-25809 2023-28642 2024-21626 2024-45310 2025-31133 \
    2025-52565 2025-52881 2025-62161 2025-62596 2025-24965 2026-30892 2026-41579 2026-47766 2024-0132 2025-23266 \
    2019-10214 2020-15157 2021-41092 2021-41190 2024-3727 2021-21285 2017-14992 2014-9358 2014-9357 2026-41567 2018-20990 2021-38511 \
    2023-25153 2025-62725 2025-62518 GHSA-3cv2-h65g-fgmm RUSTSEC-2026-0112 2014-6407 2014-9356 2026-17106 2020-10696 \
    2021-29136 2021-32760 2025-47290 2021-41089 2025-58183 2021-20291 2024-9676 2024-40635 2026-47262 2015-3627 2015-3629 \
    2015-3630 2015-3631 2019-10152 2019-18466 2023-0778 2025-9566 2026-55686 2018-15664 2019-14271 2026-41568 2026-42306";

/// Programs of tests besides `tests/tests/security`: name, package, source below the workspace.
pub const PROGRAMS: &[(&str, &str, &str)] = &[
    ("hostile_tar", "onggi-storage", "crates/onggi-storage/tests/hostile_tar.rs"),
    ("agreement", "onggi-storage", "crates/onggi-storage/tests/agreement.rs"),
    ("view", "onggi-storage", "crates/onggi-storage/tests/view.rs"),
    ("onggi_storage", "onggi-storage", "crates/onggi-storage/src"),
];

/// One known vulnerability of low-level runtimes, or several of one mechanism.
#[derive(Debug, Clone, Copy)]
pub struct Advisory {
    /// CVE numbers without `CVE-`, or the whole id of another database.
    pub ids: &'static [&'static str],
    /// What was vulnerable.
    pub component: &'static str,
    /// How.
    pub mechanism: &'static str,
    /// The invariant of docs/security.md that excludes it.
    pub invariants: &'static str,
    /// Tests that try it.
    pub hostile: &'static [&'static str],
    /// Tests of what looks alike and must keep working.
    pub benign: &'static [&'static str],
}

/// Every advisory whose class this runtime could have.
pub const ADVISORIES: &[Advisory] = &[
    Advisory {
        ids: &["2014-9358"],
        component: "docker",
        mechanism: "an id or a name in an archive that is loaded becomes part of a path",
        invariants: "I9",
        hostile: &["root_cve_2014_9358_an_id_in_an_archive_is_never_a_path"],
        benign: &["root_cve_2014_9358_benign_names_of_members_may_have_any_form_inside_the_archive"],
    },
    Advisory {
        ids: &["2014-9357", "2026-41567"],
        component: "docker, moby",
        mechanism: "a decompressor from the image, or of the host, is executed for an archive",
        invariants: "I6",
        hostile: &["root_cve_2014_9357_2026_41567_load_import_and_commit_execute_nothing_whatever_the_compression"],
        benign: &["root_cve_2014_9357_2026_41567_benign_programs_of_the_image_run_inside_of_it"],
    },
    Advisory {
        ids: &["2018-20990", "2021-38511"],
        component: "the crate tar",
        mechanism: "links in an archive make or overwrite what is outside of it",
        invariants: "I7",
        hostile: &["root_cve_2021_38511_2018_20990_import_and_load_make_no_directory_outside"],
        benign: &["root_cve_2021_38511_2018_20990_benign_links_inside_of_an_archive_are_followed_inside"],
    },
    Advisory {
        ids: &["2023-25153"],
        component: "containerd",
        mechanism: "a document of an archive is read into memory whatever its size",
        invariants: "I12",
        hostile: &["root_cve_2023_25153_a_document_without_end_is_not_read_into_memory"],
        benign: &["root_cve_2023_25153_benign_a_long_configuration_is_loaded"],
    },
    Advisory {
        ids: &["2025-62725"],
        component: "compose",
        mechanism: "an annotation of an OCI document names a file",
        invariants: "I8",
        hostile: &["root_cve_2025_62725_annotations_name_no_files"],
        benign: &["root_cve_2025_62725_benign_an_annotation_names_the_image"],
    },
    Advisory {
        ids: &["2025-62518", "GHSA-3cv2-h65g-fgmm"],
        component: "tokio-tar, tar-rs",
        mechanism: "sizes that contradict each other hide entries from one reader",
        invariants: "I7 I9",
        hostile: &["root_ghsa_3cv2_h65g_fgmm_2025_62518_import_reads_an_archive_as_gnu_tar_does_or_not_at_all"],
        benign: &["root_ghsa_3cv2_h65g_fgmm_2025_62518_benign_an_archive_inside_of_an_archive_is_a_file"],
    },
    Advisory {
        ids: &["2019-10214", "2020-15157", "2021-41092"],
        component: "containers/image, containerd, docker/cli",
        mechanism: "credentials are sent in the clear, to a stranger's token service, or to another registry",
        invariants: "I18",
        hostile: &[
            "root_cve_2019_10214_2020_15157_2021_41092_credentials_go_to_no_stranger",
            "root_cve_2020_15157_layers_are_never_fetched_from_urls_in_a_manifest",
        ],
        benign: &[
            "root_cve_2019_10214_2020_15157_2021_41092_benign_the_registry_and_its_token_service_get_them",
            "root_cve_2020_15157_benign_an_ordinary_layer_may_carry_urls_that_are_not_used",
        ],
    },
    Advisory {
        ids: &["2021-41190"],
        component: "containerd, moby",
        mechanism: "a document is a manifest to one reader and an index to another",
        invariants: "I9",
        hostile: &["root_cve_2021_41190_a_document_with_two_meanings_is_refused"],
        benign: &["root_cve_2021_41190_benign_documents_with_one_meaning_are_pulled"],
    },
    Advisory {
        ids: &["2024-3727"],
        component: "containers/image",
        mechanism: "a digest that is none becomes part of a path",
        invariants: "I9",
        hostile: &["root_cve_2024_3727_a_digest_is_never_a_path"],
        benign: &["root_cve_2024_3727_benign_a_digest_names_its_content"],
    },
    Advisory {
        ids: &["2021-21285", "2017-14992"],
        component: "moby",
        mechanism: "a malformed manifest crashes the daemon or eats its memory",
        invariants: "I12",
        hostile: &["root_cve_2021_21285_2017_14992_no_manifest_ends_the_program_or_eats_the_machine"],
        benign: &["root_cve_2021_21285_2017_14992_benign_an_image_is_pulled_after_bad_ones"],
    },
    Advisory {
        ids: &["2015-1331", "2015-1334", "2015-1335"],
        component: "LXC",
        mechanism: "predictable lock directory; attach trusts the container's /proc; mounts follow symlinks",
        invariants: "I1 I2 I14",
        hostile: &[
            "root_cve_2015_1331_a_planted_state_directory_is_not_used",
            "root_cve_2025_52881_2015_1334_exec_does_not_trust_the_containers_proc",
            "root_cve_2015_1335_2021_30465_mounts_on_links_never_touch_the_host",
        ],
        benign: &[
            "root_cve_2015_1331_benign_states_are_private_to_their_owner",
            "root_cve_2025_52881_2015_1334_benign_values_arrive_at_create_and_exec",
            "root_cve_2015_1335_2021_30465_benign_links_inside_the_root_are_followed",
        ],
    },
    Advisory {
        ids: &["2016-3697"],
        component: "runc",
        mechanism: "a numeric uid is read as a user name",
        invariants: "I10",
        hostile: &["root_cve_2016_3697_a_number_is_never_looked_up_as_a_name"],
        benign: &["root_cve_2016_3697_benign_root_is_root"],
    },
    Advisory {
        ids: &["2016-9962"],
        component: "runc",
        mechanism: "a dumpable init holds a descriptor of the host",
        invariants: "I3",
        hostile: &[
            "root_cve_2016_9962_a_tracer_inside_sees_nothing_of_the_host_while_others_enter",
            "root_cve_2016_9962_a_tracer_with_rights_in_a_user_namespace_sees_nothing_either",
            "root_cve_2016_9962_a_container_that_waits_for_start_cannot_be_looked_into",
        ],
        benign: &["root_cve_2016_9962_benign_a_container_sees_its_own_processes"],
    },
    Advisory {
        ids: &["2017-5985", "2018-6556", "2022-47952", "2026-39402"],
        component: "lxc-user-nic",
        mechanism: "a set-user-ID helper: ownership of network namespaces, path oracle",
        invariants: "I13",
        hostile: &[
            "root_cve_2017_5985_2018_6556_2022_47952_2026_39402_nothing_is_installed_with_rights_of_its_own",
            "root_cve_2017_5985_2018_6556_2022_47952_2026_39402_a_foreign_network_namespace_is_refused_uniformly",
        ],
        benign: &["root_cve_2017_5985_2018_6556_2022_47952_2026_39402_benign_ones_own_network_namespace_is_joined"],
    },
    Advisory {
        ids: &["2019-5736"],
        component: "runc, LXC",
        mechanism: "the runtime's executable is overwritten through /proc/self/exe",
        invariants: "I4",
        hostile: &[
            "root_cve_2019_5736_a_thousand_writes_during_exec_change_nothing",
            "root_cve_2019_5736_a_privileged_container_cannot_write_it_either",
            "root_cve_2019_5736_an_ordinary_users_runtime_is_safe_too",
            "root_cve_2019_5736_images_that_execute_the_runtime_cannot_write_it",
            "root_cve_2019_5736_the_init_that_stays_inside_lies_on_a_read_only_mount",
            "root_cve_2019_5736_a_container_that_waits_for_start_cannot_be_used_to_write_it",
        ],
        benign: &["root_cve_2019_5736_benign_a_container_reads_runs_and_replaces_its_own_programs"],
    },
    Advisory {
        ids: &["2019-16884"],
        component: "runc",
        mechanism: "a volume that looks like /proc defeats AppArmor",
        invariants: "I2",
        hostile: &["root_cve_2019_16884_volumes_over_proc_are_refused"],
        benign: &["root_cve_2019_16884_benign_single_files_of_proc_may_be_covered"],
    },
    Advisory {
        ids: &["2019-19921", "2023-27561"],
        component: "runc",
        mechanism: "/proc is a symlink, and a volume changes meanwhile",
        invariants: "I1 I2",
        hostile: &[
            "root_cve_2019_19921_2023_27561_a_linked_proc_or_sys_is_refused",
            "root_cve_2019_19921_2023_27561_race_a_swapped_proc",
        ],
        benign: &["root_cve_2019_19921_2023_27561_benign_proc_and_sys_are_made_where_the_image_has_none"],
    },
    Advisory {
        ids: &["2021-30465"],
        component: "runc",
        mechanism: "a mount's destination is swapped for a symlink",
        invariants: "I1",
        hostile: &[
            "root_cve_2015_1335_2021_30465_mounts_on_links_never_touch_the_host",
            "root_cve_2021_30465_race_a_swapped_destination",
        ],
        benign: &["root_cve_2015_1335_2021_30465_benign_links_inside_the_root_are_followed"],
    },
    Advisory {
        ids: &["2021-43784"],
        component: "runc",
        mechanism: "a netlink length overflows",
        invariants: "I17",
        hostile: &[
            "root_cve_2021_43784_maps_that_are_too_long_are_refused",
            "root_cve_2021_43784_paths_and_names_that_are_too_long_are_refused",
        ],
        benign: &["root_cve_2021_43784_benign_many_mappings_arrive_whole"],
    },
    Advisory {
        ids: &["GHSA-g54h-m393-cpwq"],
        component: "runc",
        mechanism: "the list of devices is treated as a list of what is denied",
        invariants: "I15",
        hostile: &[
            "root_cve_ghsa_g54h_m393_cpwq_devices_are_denied_by_default",
            "root_cve_ghsa_g54h_m393_cpwq_a_list_denies_what_it_does_not_name",
        ],
        benign: &["root_cve_ghsa_g54h_m393_cpwq_benign_usual_and_allowed_devices_work"],
    },
    Advisory {
        ids: &["2022-29162", "2022-27650", "2022-24769", "2022-27649", "2022-27651", "2022-27652"],
        component: "runc, crun, moby, Podman, buildah, CRI-O",
        mechanism: "inheritable capabilities are not empty",
        invariants: "I11",
        hostile: &[
            "root_cve_2022_29162_2022_24769_nothing_is_inheritable_whatever_the_caller_has",
            "root_cve_2022_29162_2022_24769_no_capabilities_in_the_configuration_are_none_in_the_container",
        ],
        benign: &["root_cve_2022_29162_2022_24769_benign_inheritable_and_ambient_are_given_when_asked_for"],
    },
    Advisory {
        ids: &["2025-27612"],
        component: "youki",
        mechanism: "exec raises capabilities",
        invariants: "I11",
        hostile: &["root_cve_2025_27612_exec_does_not_raise_capabilities"],
        benign: &["root_cve_2025_27612_benign_exec_gets_the_capability_that_is_asked_for"],
    },
    Advisory {
        ids: &["2023-25809"],
        component: "runc",
        mechanism: "rootless, /sys/fs/cgroup is writable without a cgroup namespace",
        invariants: "I15",
        hostile: &["root_cve_2023_25809_a_read_only_cgroupfs_is_read_only_for_an_ordinary_user_too"],
        benign: &["root_cve_2023_25809_benign_a_writable_cgroupfs_is_the_containers_own"],
    },
    Advisory {
        ids: &["2023-28642"],
        component: "runc",
        mechanism: "AppArmor is bypassed by a symlinked /proc",
        invariants: "I2",
        hostile: &[
            "root_cve_2023_28642_a_linked_proc_never_swallows_a_label",
            "root_cve_2023_28642_a_label_that_does_not_take_is_no_container",
        ],
        benign: &["root_cve_2023_28642_benign_an_empty_label_asks_for_nothing"],
    },
    Advisory {
        ids: &["2024-21626"],
        component: "runc",
        mechanism: "a leaked descriptor and a working directory in /proc/self/fd",
        invariants: "I3",
        hostile: &[
            "root_cve_2024_21626_a_working_directory_outside_the_root_is_refused",
            "root_cve_2024_21626_exec_refuses_a_working_directory_outside_the_root",
            "root_cve_2024_21626_nothing_that_a_caller_leaked_is_inside",
            "root_cve_2024_21626_race_a_swapped_directory",
        ],
        benign: &["root_cve_2024_21626_benign_working_directories_may_be_links_and_lie_in_proc"],
    },
    Advisory {
        ids: &["2024-45310"],
        component: "runc",
        mechanism: "making missing parents races with a symlink and makes directories on the host",
        invariants: "I1",
        hostile: &[
            "root_cve_2024_45310_missing_parents_are_never_made_on_the_host",
            "root_cve_2024_45310_race_swapped_parents",
        ],
        benign: &["root_cve_2024_45310_benign_missing_parents_are_made_in_a_volume"],
    },
    Advisory {
        ids: &["2025-31133"],
        component: "runc",
        mechanism: "/dev/null is replaced by a symlink while paths are masked",
        invariants: "I5",
        hostile: &[
            "root_cve_2025_31133_a_redirected_dev_null_never_becomes_a_mask",
            "root_cve_2025_31133_race_a_swapped_dev_null",
            "root_cve_2025_31133_race_a_swapped_masked_path",
        ],
        benign: &["root_cve_2025_31133_benign_a_dev_null_of_the_image_is_fine"],
    },
    Advisory {
        ids: &["2025-52565"],
        component: "runc",
        mechanism: "/dev/pts/N is swapped before it is bound to /dev/console",
        invariants: "I5",
        hostile: &[
            "root_cve_2025_52565_a_redirected_terminal_is_refused",
            "root_cve_2025_52565_race_a_swapped_dev_pts",
            "root_cve_2025_52565_race_a_swapped_console",
        ],
        benign: &["root_cve_2025_52565_benign_a_terminal_is_the_console"],
    },
    Advisory {
        ids: &["2025-52881"],
        component: "runc, buildah",
        mechanism: "writes to /proc are redirected, even to another file of procfs",
        invariants: "I2",
        hostile: &[
            "root_cve_2025_52881_mounts_never_lead_writes_to_another_file_of_proc",
            "root_cve_2025_52881_2015_1334_exec_does_not_trust_the_containers_proc",
            "root_cve_2025_52881_race_mounts_swapped_into_proc",
        ],
        benign: &["root_cve_2025_52881_2015_1334_benign_values_arrive_at_create_and_exec"],
    },
    Advisory {
        ids: &["2025-62161", "2025-62596"],
        component: "youki",
        mechanism: "the masks' source and files of /proc redirected",
        invariants: "I1 I2 I5",
        hostile: &[
            "root_cve_2025_62161_2025_62596_links_under_masks_devices_and_proc_are_refused_or_harmless",
            "root_cve_2025_31133_race_a_swapped_dev_null",
            "root_cve_2025_52881_race_mounts_swapped_into_proc",
        ],
        benign: &["root_cve_2025_62161_2025_62596_benign_masks_hide_what_they_name"],
    },
    Advisory {
        ids: &["2025-24965"],
        component: "crun (krun)",
        mechanism: "a configuration file is created outside the root filesystem",
        invariants: "I1",
        hostile: &["root_cve_2025_24965_an_injected_file_whose_path_is_a_link_stays_inside"],
        benign: &["root_cve_2025_24965_benign_an_injected_file_covers_that_of_the_image"],
    },
    Advisory {
        ids: &["2026-30892"],
        component: "crun",
        mechanism: "`exec -u 1` runs as uid 0",
        invariants: "I10",
        hostile: &["root_cve_2026_30892_two_hundred_strings_that_are_no_user_are_refused"],
        benign: &["root_cve_2026_30892_benign_numbers_are_taken_as_they_are"],
    },
    Advisory {
        ids: &["2026-41579", "2026-47766"],
        component: "runc, crun",
        mechanism: "the image's /dev is a symlink that redirects device set-up",
        invariants: "I1",
        hostile: &["root_cve_2026_41579_2026_47766_a_linked_dev_does_not_redirect_devices"],
        benign: &["root_cve_2026_41579_2026_47766_benign_devices_are_made_in_a_dev_of_the_image"],
    },
    Advisory {
        ids: &["2024-0132", "2025-23266"],
        component: "vendors' hooks",
        mechanism: "a hook inherits the image's LD_PRELOAD; check and use differ",
        invariants: "I1 I6",
        hostile: &[
            "root_cve_2025_23266_2024_0132_hooks_inherit_nothing_of_the_image",
            "root_cve_2025_23266_2024_0132_hooks_with_an_empty_environment_have_none",
            "root_cve_2024_0132_no_program_of_the_image_runs_with_the_hosts_rights",
        ],
        benign: &["root_cve_2025_23266_2024_0132_benign_hooks_get_the_environment_of_the_configuration"],
    },
    Advisory {
        ids: &["2014-6407", "2014-9356"],
        component: "docker",
        mechanism: "hard links, absolute links and names with `..` lead out of a layer",
        invariants: "I7",
        hostile: &["hostile_tar/cve_2014_6407", "hostile_tar/cve_2014_9356"],
        benign: &["hostile_tar/twin_absolute_hard_links", "hostile_tar/twin_name_", "hostile_tar/twin_links_may_point"],
    },
    Advisory {
        ids: &["2026-17106"],
        component: "go-archive",
        mechanism: "names are checked as text, then the kernel follows links",
        invariants: "I7",
        hostile: &["hostile_tar/cve_2026_17106"],
        benign: &["hostile_tar/_through_lib_to_usr_lib_lands_in_usr_lib"],
    },
    Advisory {
        ids: &["2020-10696", "2021-29136"],
        component: "buildah, umoci",
        mechanism: "the first entry makes the layer's root a link",
        invariants: "I7",
        hostile: &["hostile_tar/cve_2020_10696", "hostile_tar/cve_2021_29136"],
        benign: &["hostile_tar/twin_root_", "hostile_tar/twin_hard_link_through_a_link_in_the_layer"],
    },
    Advisory {
        ids: &["2021-32760", "2025-47290", "2021-41089"],
        component: "containerd, docker",
        mechanism: "modes and times are given through links to what is outside",
        invariants: "I1 I7",
        hostile: &["hostile_tar/cve_2021_32760", "hostile_tar/cve_2025_47290", "hostile_tar/cve_2021_41089"],
        benign: &["hostile_tar/twin_var_run_to_run_works", "hostile_tar/twin_closed_directories_can_be_filled"],
    },
    Advisory {
        ids: &["RUSTSEC-2026-0112"],
        component: "tokio-tar, tar-rs",
        mechanism: "a size in a PAX header hides entries from one reader",
        invariants: "I7 I9",
        hostile: &["hostile_tar/rustsec_2026_0112", "agreement/rustsec_2026_0112"],
        benign: &["hostile_tar/twin_equal_pax_size", "hostile_tar/twin_unknown_pax_keys_are_ignored"],
    },
    Advisory {
        ids: &["2025-58183"],
        component: "Go's archive/tar",
        mechanism: "the map of a sparse file eats the memory",
        invariants: "I12",
        hostile: &["hostile_tar/cve_2025_58183"],
        benign: &["hostile_tar/twin_sparse_"],
    },
    Advisory {
        ids: &["2021-20291"],
        component: "containers/storage",
        mechanism: "a stream that is cut short hangs the decompressor",
        invariants: "I12",
        hostile: &["onggi_storage/cve_2021_20291"],
        benign: &["onggi_storage/several_members_and_skippable_frames_are_one_stream"],
    },
    Advisory {
        ids: &["2024-9676"],
        component: "containers/storage",
        mechanism: "/etc/passwd is a FIFO, a device, a link out",
        invariants: "I10 I12",
        hostile: &["view/cve_2024_9676", "view/account_files_behind_links_are_read_in_root_only"],
        benign: &["view/users_are_resolved_as_docker_does"],
    },
    Advisory {
        ids: &["2024-40635", "2026-47262"],
        component: "containerd",
        mechanism: "an id beyond 32 bits becomes root; a group file without end is read",
        invariants: "I10 I12",
        hostile: &[
            "hostile_tar/cve_2024_40635",
            "onggi_storage/cve_2024_40635",
            "view/cve_2026_47262",
            "onggi_storage/cve_2026_47262",
        ],
        benign: &["onggi_storage/ordinary_files_are_understood", "view/users_are_resolved_as_docker_does"],
    },
    Advisory {
        ids: &["2015-3627", "2015-3629", "2015-3630", "2015-3631"],
        component: "docker",
        mechanism: "a container's files have changed since it ran last: mounts of the next start follow them",
        invariants: "I1 I2 I3",
        hostile: &["root_cve_2015_3627_2015_3629_2015_3630_2015_3631_a_restart_trusts_nothing_that_the_container_left"],
        benign: &["root_cve_2015_3627_2015_3629_2015_3630_2015_3631_benign_a_restart_follows_links_inside"],
    },
    Advisory {
        ids: &["2019-10152", "2019-18466", "2023-0778", "2025-9566", "2026-55686"],
        component: "Podman",
        mechanism: "what the engine reads or writes in a container's files leads out through links",
        invariants: "I1",
        hostile: &[
            "root_cve_2026_55686_2019_10152_2019_18466_2023_0778_2025_9566_nothing_is_written_or_read_through_links",
        ],
        benign: &["root_cve_2026_55686_2019_10152_2019_18466_2023_0778_2025_9566_benign_links_inside_are_followed"],
    },
    Advisory {
        ids: &["2018-15664", "2026-41568", "2026-42306"],
        component: "docker, moby",
        mechanism: "paths of `cp`, and places of volumes that it mounts, are exchanged for links meanwhile",
        invariants: "I1",
        hostile: &[
            "root_cve_2018_15664_2026_41568_2026_42306_a_name_that_is_exchanged_leads_nowhere_else",
            "root_cve_2018_15664_2026_41568_2026_42306_volumes_of_a_stopped_container_are_mounted_in_its_root",
        ],
        benign: &["root_cve_2018_15664_2019_14271_2026_41568_2026_42306_benign_links_inside_are_followed"],
    },
    Advisory {
        ids: &["2019-14271"],
        component: "docker",
        mechanism: "`cp` loads a library for names of users from the container",
        invariants: "I6",
        hostile: &["root_cve_2019_14271_no_library_of_the_container_is_loaded"],
        benign: &["root_cve_2018_15664_2019_14271_2026_41568_2026_42306_benign_links_inside_are_followed"],
    },
];
