//! `docker build` when the runtime is the daemon's default, and images that it makes.

use std::fs;

use crate::docker::Docker;

#[test]
fn docker_build_runs_its_steps_with_the_default_runtime() {
    for runtime in ["runc", "onggi"] {
        let docker = Docker::with(&["--bridge=none", &format!("--default-runtime={runtime}")]);
        let context = docker.stage.dir().join("context");
        fs::create_dir(&context).expect("make the context");
        let file = "FROM box\nCOPY note /note\nUSER user\nRUN id -u > /tmp/uid && cat /note >> /tmp/uid\nUSER root\n\
                    ENV A=b\nWORKDIR /made\nRUN echo $A > f && mkdir -p d/e\nHEALTHCHECK NONE\nCMD cat /tmp/uid /made/f\n";
        fs::write(context.join("Dockerfile"), file).expect("write the Dockerfile");
        fs::write(context.join("note"), "noted\n").expect("write a file");
        let context = context.display().to_string();
        docker.ok(&["build", "--network", "none", "-q", "-t", "made", &context]);
        assert_eq!(docker.ok(&["run", "--rm", "--network", "none", "made"]), "1000\nnoted\nb", "{runtime}");
        fs::write(docker.stage.dir().join("context/Dockerfile"), "FROM box\nRUN exit 6\n")
            .expect("write the Dockerfile");
        let ran = docker.run(&["build", "--force-rm", "--network", "none", "-q", &context]);
        assert!(ran.code != Some(0) && ran.stderr.contains("returned a non-zero code: 6"), "{runtime}: {ran}");
        docker.assert_nothing_left();
    }
}
