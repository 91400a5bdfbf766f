//! Builds the shim around libiscsi, where the feature `iscsi` is on.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "iscsi")]
    iscsi();
}

/// The first version that was tried; Debian 12 has it.
#[cfg(feature = "iscsi")]
const LIBISCSI: &str = "1.19";

#[cfg(feature = "iscsi")]
fn iscsi() {
    const SHIM: &str = "src/path/iscsi/shim.c";
    println!("cargo:rerun-if-changed={SHIM}");
    let found = pkg_config::Config::new().atleast_version(LIBISCSI).probe("libiscsi");
    let library = match found {
        Ok(library) => library,
        Err(error) => {
            eprintln!(
                "iSCSI paths need libiscsi {LIBISCSI} or later (Debian: libiscsi-dev, pkg-config); \
                 --no-default-features builds without them.\n{error}"
            );
            std::process::exit(1);
        }
    };
    cc::Build::new()
        .file(SHIM)
        .includes(&library.include_paths)
        .flag("-std=gnu11")
        .warnings(true)
        .extra_warnings(true)
        .compile("iscsi_shim");
    // After the shim, which needs it: the linker reads libraries in order.
    println!("cargo:rustc-link-lib=iscsi");
}
