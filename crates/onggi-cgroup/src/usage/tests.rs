//! The kernel's text in, runc's shape out.

use proptest::prelude::*;

use super::*;

fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("tempdir");
    for (name, text) in files {
        fs::write(dir.path().join(name), text).expect("write");
    }
    dir
}

#[test]
fn version_2_in_the_shape_of_runc() {
    let d = dir(&[
        ("cpu.stat", "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 9\nnr_throttled 7\nthrottled_usec 9\n"),
        (
            "cpu.pressure",
            "some avg10=1.50 avg60=0.00 avg300=0.00 total=77\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=3\n",
        ),
        ("cpuset.cpus", "0-1,5\n"),
        ("memory.current", "4096\n"),
        ("memory.max", "8192\n"),
        ("memory.peak", "6000\n"),
        ("memory.swap.current", "10\n"),
        ("memory.swap.max", "max\n"),
        ("memory.stat", "anon 1\nfile 1024\n"),
        ("memory.events", "low 0\nmax 4\noom 2\noom_kill 1\n"),
        ("pids.current", "3\n"),
        ("pids.max", "max\n"),
        ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n\n"),
        ("hugetlb.2MB.current", "2097152\n"),
        ("hugetlb.2MB.rsvd.current", "0\n"),
        ("hugetlb.2MB.events", "max 1\n"),
        ("rdma.current", "mlx5_0 hca_handle=2 hca_object=3\n"),
        ("rdma.max", "mlx5_0 hca_handle=9 hca_object=max\n"),
    ]);
    let paths = Paths::from([(String::new(), d.path().to_owned())]);
    let json = serde_json::to_string(&usage(&paths).expect("usage")).expect("json");
    insta::assert_snapshot!(json, @r#"{"cpu":{"usage":{"total":5000,"kernel":2000,"user":3000},"throttling":{"periods":9,"throttledPeriods":7,"throttledTime":9000},"psi":{"some":{"avg10":1.5,"avg60":0.0,"avg300":0.0,"total":77},"full":{"avg10":0.25,"avg60":0.0,"avg300":0.0,"total":3}}},"cpuset":{"cpus":[0,1,5],"cpu_exclusive":0,"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"memory_spread_page":0,"memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":0,"sched_relax_domain_level":0},"memory":{"cache":1024,"usage":{"limit":8192,"usage":4096,"max":6000,"failcnt":4},"swap":{"limit":18446744073709551615,"usage":4106,"failcnt":0},"kernel":{"limit":0,"failcnt":0},"kernelTCP":{"limit":0,"failcnt":0},"raw":{"anon":1,"file":1024}},"pids":{"current":3},"blkio":{"ioServiceBytesRecursive":[{"major":8,"op":"Read","value":1},{"major":8,"op":"Write","value":2},{"major":8,"op":"Discard","value":5}],"ioServicedRecursive":[{"major":8,"op":"Read","value":3},{"major":8,"op":"Write","value":4},{"major":8,"op":"Discard","value":6}]},"hugetlb":{"2MB":{"usage":2097152,"failcnt":1}},"rdma":{"mlx5_0":{"hca_handle":[2,9],"hca_object":[3,4294967295]}},"intel_rdt":{},"network_interfaces":null}"#);
}

#[test]
fn version_1_in_the_shape_of_runc() {
    let d = dir(&[
        ("cpuacct.usage", "20\n"),
        ("cpuacct.usage_percpu", "12 8 \n"),
        ("cpuacct.usage_all", "cpu user system\n0 1 2\n1 3 4\n"),
        ("cpuacct.stat", "user 5\nsystem 6\n"),
        ("memory.usage_in_bytes", "4096\n"),
        ("memory.limit_in_bytes", "9223372036854771712\n"),
        ("memory.failcnt", "3\n"),
        ("memory.memsw.usage_in_bytes", "5000\n"),
        ("memory.stat", "cache 7\ntotal_cache 7\n"),
        ("blkio.throttle.io_service_bytes_recursive", "8:0 Read 10\n8:0 Write 20\nTotal 30\n"),
    ]);
    let paths = Paths::from(["memory", "cpuacct", "blkio"].map(|c| (c.to_owned(), d.path().to_owned())));
    let u = usage(&paths).expect("usage");
    assert_eq!((u.cpu.usage.total, u.cpu.usage.user, u.cpu.usage.kernel), (20, 50_000_000, 60_000_000));
    assert_eq!(
        (u.cpu.usage.percpu, u.cpu.usage.percpu_user, u.cpu.usage.percpu_kernel),
        (vec![12, 8], vec![1, 3], vec![2, 4])
    );
    assert_eq!((u.memory.cache, u.memory.usage.failcnt, u.memory.swap.usage), (7, 3, 5000));
    assert_eq!(u.blkio.io_service_bytes_recursive.len(), 2);
}

#[test]
fn a_container_that_is_gone_uses_nothing() {
    for key in ["memory", ""] {
        let paths = Paths::from([(key.to_owned(), "/nonexistent".into())]);
        assert_eq!(usage(&paths).expect("usage").memory, Memory::default());
    }
}

proptest! {
    /// Parsers of control files take any text, as a kernel of the future may write it.
    #[test]
    fn control_files_of_any_content_never_panic(text in "([a-z0-9:.=, -]{0,20}\n?){0,6}", bytes in ".{0,40}") {
        for t in [&text, &bytes] {
            parse_number(t);
            numbers(t);
            flat(t);
            prop_assert!(list(t).len() <= MAX_LISTED);
            blkio(t);
            rdma(t, t);
            psi(t);
        }
    }

    #[test]
    fn whole_directories_of_any_content_are_read(text in "([a-z0-9:.=, -]{0,20}\n?){0,4}") {
        let names = ["cpu.stat", "cpuset.cpus", "memory.current", "memory.stat", "memory.events", "io.stat", "cpu.pressure",
            "pids.max", "cpuacct.usage_all", "cpuacct.stat", "blkio.throttle.io_serviced_recursive"];
        let d = dir(&names.map(|name| (name, text.as_str())));
        for key in ["", "cpu", "cpuacct", "memory", "blkio", "cpuset", "pids"] {
            usage(&Paths::from([(key.to_owned(), d.path().to_owned())])).expect("usage");
        }
    }

    #[test]
    fn lists_are_read_as_the_kernel_writes_them(cpus in proptest::collection::btree_set(0u16..64, 0..20)) {
        let all: Vec<u16> = cpus.into_iter().collect();
        let text = all.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
        prop_assert_eq!(list(&text), all);
    }
}
