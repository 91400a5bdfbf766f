//! Which machine this is, as far as who reads the report wants to know.

use std::path::Path;

/// What is known of the machine. What it does not tell is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub name: Option<String>,
    /// The distribution.
    pub system: Option<String>,
    /// The kernel's release.
    pub kernel: Option<String>,
    /// Processors.
    pub processors: Option<usize>,
}

impl Host {
    /// Reads what is below `root`.
    pub fn read(root: &Path) -> Host {
        let text = |file: &str| std::fs::read_to_string(root.join(file)).ok();
        let line = |file: &str| {
            text(file).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let release = text("etc/os-release").unwrap_or_default();
        let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        Host {
            name: line("proc/sys/kernel/hostname"),
            system: pretty.map(|name| name.trim_matches(['"', '\'']).to_owned()),
            kernel: line("proc/sys/kernel/osrelease"),
            processors: std::thread::available_parallelism().ok().map(usize::from),
        }
    }

    /// The name, or a word for it.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("this host")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_is_what_its_files_say() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Host::read(root.path()).name(), "this host");
        std::fs::create_dir_all(root.path().join("proc/sys/kernel")).unwrap();
        std::fs::create_dir_all(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("proc/sys/kernel/hostname"), "hv7\n").unwrap();
        let release = "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n";
        std::fs::write(root.path().join("etc/os-release"), release).unwrap();
        let host = Host::read(root.path());
        assert_eq!((host.name(), &host.kernel), ("hv7", &None));
        assert_eq!(host.system.as_deref(), Some("Debian GNU/Linux 12 (bookworm)"));
    }
}
