//! OCI image types: descriptor, manifest, index, image configuration (image-spec 1.1, Docker schema 2).
