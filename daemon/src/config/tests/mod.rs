//! The configuration, from files on disk to what it means.

mod bad;
mod merged;
mod random;
mod said;
mod shipped;
mod surroundings;

use std::fs;
use std::path::Path;

use fieldspool_drivers::bus::DeviceSpec;

use super::{Folders, Loaded, load};

/// Loads these files as if they were a whole configuration folder; (path below it, text).
fn loaded(files: &[(&str, &str)]) -> (tempfile::TempDir, Loaded) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let loaded = load(&only(folder.path()));
    (folder, loaded)
}

/// This folder and no other.
fn only(folder: &Path) -> Folders {
    Folders { config: vec![folder.to_path_buf()], profiles: vec![folder.join("profiles")], named: true }
}

/// The configuration that the documentation begins with.
const PLANT: &str = r#"
gateway = "plant7-gw1"
[uplink]
broker = "mqtts://mqtt.example.com:8883"
ca     = "tls/ca.pem"
cert   = "tls/gateway.pem"
key    = "tls/gateway.key"
[bus.hall]
period = "10s"
[bus.hall.link.modbus-rtu]
port   = "/dev/serial/by-path/platform-fd500000.pcie-usb-0:1.3:1.0-port0"
speed  = 9600
format = "8N1"
[bus.hall.device]
meter-01 = { unit_id = 1, profile = "eastron-sdm630", label = "Incomer" }
meter-02 = { unit_id = 2, profile = "eastron-sdm630", label = "Compressor 2", period = "2s" }
"#;

const METER: &str = r#"
name     = "Eastron SDM630-Modbus V2"
source   = "manual, document number, page"
factory  = { speed = 9600, format = "8N1", unit_id = 1 }
headline = ["power", "energy_import"]
defaults = { type = "f32", order = "ABCD" }
[points]
voltage_l1    = { input = 0,   unit = "V",   decimals = 1 }
power         = { input = 52,  unit = "W",   decimals = 0 }
energy_import = { ref = 30073, unit = "kWh", decimals = 2, period = "60s" }
"#;

#[test]
fn the_first_example_means_what_it_says() {
    let (folder, loaded) = loaded(&[("plant.toml", PLANT), ("profiles/eastron-sdm630.toml", METER)]);
    assert_eq!(loaded.faults, []);
    let config = loaded.config.unwrap();
    assert_eq!(&*config.gateway, "plant7-gw1");
    let identity = config.uplink.unwrap().identity.unwrap();
    assert_eq!(identity.key, folder.path().join("tls/gateway.key"), "relative to the file's own folder");
    let [bus] = config.buses.as_slice() else { panic!("one bus") };
    let [first, second] = bus.spec.devices.as_slice() else { panic!("two devices") };
    let periods = |device: &DeviceSpec| -> Vec<(u64, Vec<u16>)> {
        device.groups.iter().map(|group| (group.period.as_secs(), group.points.clone())).collect()
    };
    assert_eq!(periods(first), [(10, vec![0, 1]), (60, vec![2])]);
    assert_eq!(periods(second), [(2, vec![0, 1]), (60, vec![2])]);
    assert_eq!(&*bus.devices[1].label, "Compressor 2");
    assert_eq!(bus.devices[0].headline, [1, 2]);
    assert_eq!(bus.devices[0].points[2].unit.as_ref(), "kWh");
}

#[test]
fn no_configuration_at_all_is_idle_and_no_fault() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("absent");
    let folders = Folders { config: vec![nowhere.clone()], profiles: vec![nowhere], named: false };
    let loaded = load(&folders);
    assert_eq!(loaded.faults, []);
    assert!(loaded.config.unwrap().is_idle());
}

#[test]
fn a_folder_that_is_there_and_cannot_be_listed_is_a_fault_wherever_it_lies() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("site.toml"), "trust_rtc = true\n").unwrap();
    // Leads to itself: there is something, and it cannot be read. A sick disk cannot be had so cheaply.
    let sick = folder.path().join("sick");
    std::os::unix::fs::symlink(&sick, &sick).unwrap();
    let read = |config: &[&Path], profiles: &[&Path]| {
        let paths = |folders: &[&Path]| folders.iter().map(|folder| folder.to_path_buf()).collect();
        load(&Folders { config: paths(config), profiles: paths(profiles), named: false })
    };
    for loaded in [read(&[folder.path(), &sick], &[]), read(&[folder.path()], &[&sick])] {
        let refusal = loaded.refusal().unwrap_or_default();
        assert!(
            refusal.contains("sick: cannot be read: ") && refusal.contains("check the disk"),
            "{refusal}"
        );
    }
}

#[test]
fn an_entry_that_cannot_be_read_is_a_fault_and_not_the_end_of_the_list() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("site.toml"), "").unwrap();
    let findings = super::Findings::default();
    let mut reader = super::Reader::new(&findings);
    let mut files = Vec::new();
    let entries = fs::read_dir(folder.path()).unwrap();
    let error = std::io::Error::from_raw_os_error(5);
    reader.list(folder.path(), entries.chain([Err(error)]), &mut files);
    assert_eq!(files.len(), 1);
    let faults: Vec<String> = findings.faults.borrow().iter().map(ToString::to_string).collect();
    assert!(faults.len() == 1 && faults[0].contains("cannot be read: Input/output error"), "{faults:?}");
    assert!(findings.may_pass(&findings.faults.borrow()), "a disk that does not answer");
}

/// A device whose profile stands elsewhere.
const DEVICE: &str = r#"
[bus.hall]
period = "1s"
[bus.hall.link.modbus-tcp]
host = "plc"
[bus.hall.device.d1]
unit_id = 1
profile = "p"
"#;

#[test]
fn only_what_nobody_need_mend_is_said_to_pass_by_itself() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("site.toml"), "trust_rtc = true\n").unwrap();
    fs::create_dir(path("bus")).unwrap();
    let may_pass = |place: &Path| load(&only(place)).may_pass;
    assert!(!may_pass(folder.path()));
    // On a disk that is mounted later: a drop-in, a profile's folder, all of it.
    symlink(path("late/30.toml"), path("30.toml")).unwrap();
    assert!(may_pass(folder.path()));
    symlink(path("late"), path("all")).unwrap();
    assert!(may_pass(&path("all")) && may_pass(&path("all/fieldspool")));
    // What only follows from it is not held against it.
    fs::write(path("bus/10.toml"), DEVICE).unwrap();
    symlink(path("late"), path("bus/profiles")).unwrap();
    let follows = load(&only(&path("bus")));
    assert!(follows.may_pass, "{:?}", follows.faults);
    // Beside a typo it helps nobody to wait.
    fs::write(path("site.toml"), "trust_rtv = true\n").unwrap();
    let beside = load(&only(folder.path()));
    assert!(!beside.may_pass && beside.faults.len() == 2, "{:?}", beside.faults);
    // Nor for a path that leads nowhere.
    assert!(!may_pass(&path("nowhere")));
    assert!(!may_pass(&path("site.toml/below")), "no folder");
    symlink(path("round"), path("round")).unwrap();
    assert!(!may_pass(&path("round")), "a link to itself");
    assert!(!may_pass(&path(&"long".repeat(100))), "a name that is too long");
}

#[test]
fn a_faulty_file_leaves_no_configuration() {
    let (_folder, loaded) = loaded(&[("a.toml", "trust_rtc = true\n"), ("b.toml", "trust_rtv = true\n")]);
    assert_eq!(loaded.config, None);
    let refusal = loaded.refusal().unwrap();
    assert!(
        refusal.contains("b.toml:1:1: unknown key \"trust_rtv\"; did you mean \"trust_rtc\"?"),
        "{refusal}"
    );
}

/// The messages, with the folder taken out.
fn messages(files: &[(&str, &str)]) -> Vec<String> {
    let (folder, loaded) = loaded(files);
    let prefix = format!("{}/", folder.path().display());
    loaded.faults.iter().map(|fault| fault.to_string().replace(&prefix, "")).collect()
}
