//! `Config` of `inspect`: what the image and the options give together. It is known when the container is made, so it is
//! computed from them as `start` does; only the environment of the last start knows the HOME of the root filesystem's user.

use std::collections::BTreeSet;

use onggi_spec::{
    HostFacts,
    image::{ContainerConfig, ImageConfig},
    oci::{
        build::{effective_directory, effective_environment, effective_hostname},
        runtime::Spec,
    },
};
use onggi_state::ContainerRecord;
use serde_json::{Map, Value, json};

pub(super) fn of(r: &ContainerRecord, image: Option<&ImageConfig>, spec: Option<&Spec>, facts: &HostFacts) -> Value {
    let process = spec.and_then(|s| s.process.as_ref());
    let own = image.map(|i| &i.config);
    let hostname = effective_hostname(&r.request, facts, &r.id);
    // What `start` would refuse is shown as it was asked for.
    let environment = || effective_environment(&r.request, image, &hostname).unwrap_or_else(|_| r.request.env.clone());
    let directory =
        || effective_directory(&r.request, image).unwrap_or_else(|_| r.request.workdir.clone().unwrap_or_default());
    let user = r.request.user.as_ref().map(ToString::to_string).or_else(|| own.map(|c| c.user.clone()));
    json!({
        "Hostname": hostname,
        "Domainname": r.request.domainname.as_deref().unwrap_or_default(),
        "User": user.unwrap_or_default(),
        "Tty": r.request.tty,
        "OpenStdin": r.request.interactive,
        "ExposedPorts": exposed_ports(r, own),
        "Env": process.map_or_else(environment, |p| p.env.clone()),
        "Cmd": arguments(r, own),
        "Entrypoint": entrypoint(r, own),
        "Image": r.image_name,
        "Volumes": own.map_or_else(|| json!({}), |c| json!(c.volumes)),
        "WorkingDir": process.map_or_else(directory, |p| p.cwd.clone()),
        "StopSignal": r.request.stop.signal.clone().or_else(|| own.and_then(|c| c.stop_signal.clone())).unwrap_or_default(),
        "StopTimeout": r.request.stop.timeout,
        // Nothing here looks at a container's health, or builds.
        "Healthcheck": null, "OnBuild": [],
        "Labels": r.request.labels,
    })
}

/// An entry point of one's own discards the image's arguments.
fn arguments(r: &ContainerRecord, image: Option<&ContainerConfig>) -> Vec<String> {
    match (&r.request.entrypoint, image) {
        _ if !r.request.command.is_empty() => r.request.command.clone(),
        (Some(_), _) => Vec::new(),
        (None, Some(config)) => config.cmd.clone().unwrap_or_default(),
        (None, None) => r.command.clone(),
    }
}

fn entrypoint(r: &ContainerRecord, image: Option<&ContainerConfig>) -> Vec<String> {
    let of_image = || image.and_then(|c| c.entrypoint.clone()).unwrap_or_default();
    r.request.entrypoint.clone().unwrap_or_else(of_image)
}

/// Those that the image names, and those that are published.
fn exposed_ports(r: &ContainerRecord, image: Option<&ContainerConfig>) -> Value {
    let with_protocol = |port: &String| if port.contains('/') { port.clone() } else { format!("{port}/tcp") };
    let of_image = image.into_iter().flat_map(|c| c.exposed_ports.keys()).chain(&r.request.expose).map(with_protocol);
    let published = r.request.ports.iter().map(|p| format!("{}/{}", p.container_port, p.protocol));
    let all: BTreeSet<String> = of_image.chain(published).collect();
    Value::Object(all.into_iter().map(|port| (port, json!({}))).collect::<Map<_, _>>())
}
