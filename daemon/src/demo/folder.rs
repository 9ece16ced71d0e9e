//! The folder of one demo: configuration, certificates, state, sockets, logs. Readable by its owner only.
//!
//! A lock file says that the demo lives; folders whose lock is free belong to demos that were killed, and go.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use fieldspool_drivers::simulator::{RTU_SPEED, Simulation};
use nix::fcntl::{Flock, FlockArg};

const PREFIX: &str = "fieldspool-demo-";

/// The configuration, with `{...}` for what differs from demo to demo.
const GATEWAY_TOML: &str = include_str!("gateway.toml");

/// The shipped profile of its energy meters.
const METER_TOML: &str = include_str!("../../../config/profiles/eastron-sdm630.toml");

/// See the file.
pub(super) struct Folder {
    path: PathBuf,
    _lives: Flock<File>,
}

impl Folder {
    /// Makes it, and removes what killed demos of this user have left.
    pub(super) fn create() -> io::Result<Self> {
        let above = std::env::temp_dir();
        remove_left_over(&above);
        let path = above.join(format!("{PREFIX}{}", std::process::id()));
        let mut make = DirBuilder::new();
        make.mode(0o700);
        make.create(&path)?;
        let lock = File::create_new(path.join("lock"))?;
        let lives = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)?;
        let folder = Self { path, _lives: lives };
        for part in [folder.configuration(), folder.tls(), folder.state(), folder.runtime()] {
            make.create(part)?;
        }
        make.create(folder.configuration().join("profiles"))?;
        Ok(folder)
    }

    /// Writes the configuration of the simulated plant.
    pub(super) fn configure(&self, plant: &Simulation, broker_port: u16, page_port: u16) -> io::Result<()> {
        let text = GATEWAY_TOML
            .replace("{broker_port}", &broker_port.to_string())
            .replace("{page_port}", &page_port.to_string())
            .replace("{rtu}", &plant.rtu.display().to_string())
            .replace("{rtu_speed}", &RTU_SPEED.to_string())
            .replace("{weather}", &plant.weather.display().to_string())
            .replace("{scale}", &plant.scale.display().to_string())
            .replace("{tcp_port}", &plant.tcp.port().to_string());
        fs::write(self.configuration().join("profiles/eastron-sdm630.toml"), METER_TOML)?;
        fs::write(self.configuration().join("fieldspool.toml"), text)
    }

    /// For `--config`.
    pub(super) fn configuration(&self) -> PathBuf {
        self.path.join("config")
    }

    /// Certificates and keys.
    pub(super) fn tls(&self) -> PathBuf {
        self.configuration().join("tls")
    }

    /// The daemon's state directory.
    pub(super) fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    /// The daemon's runtime directory.
    pub(super) fn runtime(&self) -> PathBuf {
        self.path.join("run")
    }

    /// What a child says.
    pub(super) fn log(&self, child: &str) -> PathBuf {
        self.path.join(child).with_extension("log")
    }

    /// The folder itself.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it with all that is in it.
    pub(super) fn remove(self) -> io::Result<()> {
        fs::remove_dir_all(&self.path)
    }
}

fn remove_left_over(above: &Path) {
    let own = nix::unistd::geteuid().as_raw();
    for entry in fs::read_dir(above).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX)
            && entry.metadata().is_ok_and(|found| found.is_dir() && found.uid() == own);
        // A folder without a lock file is being made or removed just now.
        if ours
            && let Ok(lock) = File::open(entry.path().join("lock"))
            && Flock::lock(lock, FlockArg::LockExclusiveNonblock).is_ok()
        {
            // What cannot be removed is tried again by the next demo.
            let _still_there = fs::remove_dir_all(entry.path());
        }
    }
}

/// The last lines of a log.
pub(super) fn tail(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(12)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, report};
    use crate::demo::certificates;

    #[tokio::test]
    async fn the_demos_configuration_passes_the_check() {
        let plant = Simulation::start().await.unwrap();
        let folder = Folder::create().unwrap();
        certificates::write(&folder.tls()).unwrap();
        folder.configure(&plant, 8_883, 8_480).unwrap();
        let report = report::check(Some(&folder.configuration()), true, crate::clock::wall_us());
        folder.remove().unwrap();
        assert_eq!(report.exit, 0, "{}", report.text);
        assert!(!report.text.contains("warning"), "{}", report.text);
        for request in ["unit 2, input registers", "query \"S\\r\\n\"", "listen"] {
            assert!(report.text.contains(request), "{request} is not in the plan:\n{}", report.text);
        }
    }

    #[test]
    fn the_shipped_example_of_line_instruments_is_understood() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/examples/serial-line.toml");
        let loaded = config::load(&config::Folders::given(Path::new(path)));
        assert!(loaded.config.is_some(), "{:?}", loaded.refusal());
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }

    #[test]
    fn what_a_killed_demo_left_is_removed_and_what_a_living_one_uses_is_not() {
        let above = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let path = above.path().join(format!("{PREFIX}{name}"));
            fs::create_dir(&path).unwrap();
            let lock = File::create_new(path.join("lock")).unwrap();
            (path, Flock::lock(lock, FlockArg::LockExclusiveNonblock).ok().unwrap())
        };
        let (killed, lock) = folder("1");
        drop(lock);
        let (living, _lock) = folder("2");
        let other = above.path().join("somebody-elses");
        fs::create_dir(&other).unwrap();
        remove_left_over(above.path());
        assert!(!killed.exists() && living.exists() && other.exists());
    }
}
