//! Plans of the verbs that talk to registries. Those of pull and push ask for what can be known before.

use onggi_image::Puller;
use onggi_spec::{Digest, ImageReference, progress::Silent};

use super::{RowChange, VerbOp, VerbPlan};
use crate::{
    Engine, EngineError, PullOptions, PullPolicy, PushRequest, RegistryChoice, pull::registry_options, registry::login,
};

impl Engine {
    /// `pull`: resolves the manifest, then tells what is missing and how large it is.
    ///
    /// # Errors
    /// The registry cannot be reached, or has no such image.
    pub fn explain_pull(&self, reference: &ImageReference, options: &PullOptions) -> Result<VerbPlan, EngineError> {
        let mut plan = VerbPlan::new(format!("pull {}", reference.familiar()));
        if options.policy == PullPolicy::Missing && self.has_store() && self.find_image(&reference.to_string()).is_ok()
        {
            plan.note("it is stored, and the policy is not to ask the registry then");
            return Ok(plan);
        }
        let (registry, source) = registry_options(&self.registries(&options.registry)?, reference, options)?;
        // A store of its own: asking leaves nothing in the real one.
        let scratch =
            tempfile::tempdir().map_err(|source| EngineError::MakeDir { path: std::env::temp_dir(), source })?;
        let blobs = onggi_image::BlobStore::open(scratch.path())?;
        let image = Puller::new(&blobs, reference, registry, &Silent)?.plan()?;
        let base = url(&source.reference);
        plan.push(VerbOp::Ask {
            url: format!("{base}/manifests/{}", source.reference.selector()),
            what: format!("the manifest, {} (asked already for this plan)", image.repo_digest.short()),
        });
        let diff_ids: Vec<Digest> = image.layers.iter().map(|l| l.diff_id.clone()).collect();
        let chain_ids = onggi_storage::chain_ids(&diff_ids);
        let mut bytes = 0;
        for (layer, chain_id) in image.layers.iter().zip(&chain_ids) {
            let path = self.paths.root.join("blobs/sha256").join(layer.digest.hex());
            match path.exists() {
                true => plan.push(VerbOp::Keep { digest: layer.digest.clone(), what: "the blob of a layer".into() }),
                false => {
                    bytes += layer.size;
                    plan.push(VerbOp::Fetch {
                        digest: layer.digest.clone(),
                        bytes: layer.size,
                        what: "a layer".into(),
                        from: format!("{base}/blobs/{}", layer.digest),
                    });
                }
            }
            let dir = self.paths.root.join("layers").join(chain_id.hex());
            match dir.exists() {
                true => plan.push(VerbOp::Keep { digest: chain_id.clone(), what: "the unpacked layer".into() }),
                false => plan.push(VerbOp::Unpack { blob: path, dir, chain_id: chain_id.clone() }),
            }
        }
        plan.note(format!(
            "{} layers of {} in all, of which {} are fetched",
            image.layers.len(),
            onggi_spec::quantity::human_size(image.layer_bytes()),
            onggi_spec::quantity::human_size(bytes)
        ));
        self.add_rows(&image.config_digest, reference, &mut plan);
        Ok(plan)
    }

    fn add_rows(&self, id: &Digest, reference: &ImageReference, plan: &mut VerbPlan) {
        for (table, key, what) in [
            ("images", ("id", id.to_string()), "the image, once every layer is synced"),
            ("names", ("name", reference.to_string()), "its name"),
        ] {
            let (database, what) = (self.database(), what.to_owned());
            plan.push(VerbOp::Row { database, change: RowChange::Put, table, key, what, sql: None });
        }
    }

    /// `push`.
    ///
    /// # Errors
    /// No such image.
    pub fn explain_push(
        &self,
        name: &str,
        target: Option<&ImageReference>,
        request: &PushRequest,
    ) -> Result<VerbPlan, EngineError> {
        let image = self.find_image(name)?;
        let target = match target {
            Some(target) => target.clone(),
            None => self.own_place(name)?,
        };
        let (place, _) = self.registries(&request.choice)?.target(&target)?;
        let base = url(&place);
        let blobs = self.blobs()?;
        let mut plan = VerbPlan::new(format!("push {name} to {}", target.familiar()));
        let size = |digest: &Digest| std::fs::metadata(blobs.path(digest)).map(|m| m.len()).unwrap_or_default();
        let mut send = |digest: &Digest, what: &str, to: String| {
            plan.push(VerbOp::Send { digest: digest.clone(), bytes: size(digest), what: what.to_owned(), to });
        };
        for layer in &image.layer_digests {
            send(layer, "a layer", format!("{base}/blobs/{layer}"));
        }
        send(&image.config_digest, "the configuration", format!("{base}/blobs/{}", image.config_digest));
        send(&image.manifest_digest, "the manifest, last", format!("{base}/manifests/{}", place.selector()));
        if request.compression.is_some() {
            plan.note("plain layers are compressed on the way: their digests, and the manifest's, are then others");
        }
        for (wanted, what) in [(request.all_platforms, "the other platforms"), (request.referrers, "what refers to it")]
        {
            if wanted {
                plan.note(format!("{what} follow in the same way"));
            }
        }
        Ok(plan)
    }

    /// `login`: which registry is shown the credentials, and who keeps them.
    ///
    /// # Errors
    /// No such registry, or no place to keep them.
    pub fn explain_login(&self, registry: Option<&str>, choice: &RegistryChoice) -> Result<VerbPlan, EngineError> {
        let login::Place { registry, file, helper } = login::place(registry, choice)?;
        let mut plan = VerbPlan::new(format!("log in to {registry}"));
        plan.push(VerbOp::Ask {
            url: format!("https://{registry}/v2/"),
            what: "whether it accepts the credentials".into(),
        });
        match helper {
            Some(name) => plan.push(VerbOp::Run {
                args: vec![format!("docker-credential-{name}"), "store".into()],
                what: "keep the secret".into(),
            }),
            None => plan.note("no credential helper is configured: the secret is kept in the file, not encrypted"),
        }
        plan.push(VerbOp::Write { path: file, what: format!("an entry for {registry}"), text: None });
        Ok(plan)
    }

    /// `logout`.
    ///
    /// # Errors
    /// No such registry, or no file.
    pub fn explain_logout(
        &self,
        registries: &[Option<String>],
        choice: &RegistryChoice,
    ) -> Result<VerbPlan, EngineError> {
        let mut plan = VerbPlan::new("log out");
        for registry in registries {
            for login::Place { registry, file, helper } in login::places(registry.as_deref(), choice)? {
                if let Some(name) = helper {
                    plan.push(VerbOp::Run {
                        args: vec![format!("docker-credential-{name}"), "erase".into()],
                        what: format!("forget the secret for {registry}"),
                    });
                }
                let what = format!("without the entry for {registry}, if there is one");
                plan.push(VerbOp::Write { path: file, what, text: None });
            }
        }
        Ok(plan)
    }

    /// Registries of which credentials are kept.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn logins(&self, choice: &RegistryChoice) -> Result<Vec<String>, EngineError> {
        login::known(choice)
    }
}

/// Where the registry's API has a repository.
fn url(place: &ImageReference) -> String {
    let host = match place.registry() {
        "docker.io" => "registry-1.docker.io",
        other => other,
    };
    format!("https://{host}/v2/{}", place.repository())
}
