//! Folders, drop-ins, profiles: what lies over what.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use super::{METER, PLANT, loaded, messages};
use crate::config::{Change, Config, Folders, diff, load};

const LINK: &str = "[bus.hall.link.modbus-rtu]\nport = \"/dev/ttyS99\"\n";

fn config(files: &[(&str, &str)]) -> Config {
    let (_folder, loaded) = loaded(files);
    assert_eq!(loaded.faults, []);
    loaded.config.unwrap()
}

#[test]
fn tables_of_several_files_merge_and_the_later_scalar_counts() {
    let first = format!(
        "{LINK}[bus.hall.device]\na = {{ unit_id = 1, points.p = {{ input = 0 }} }}\n[spool]\nkeep = \"unsent\"\n"
    );
    let second = "[bus.hall]\nperiod = \"3s\"\n[bus.hall.device]\nb = { unit_id = 2, points.p = { input = 0 } }\n[spool]\nkeep = \"all\"\n";
    let config = config(&[("10.toml", &first), ("20.toml", second)]);
    assert_eq!(config.spool.keep, crate::spool::Keep::All);
    let names: Vec<&str> = config.buses[0].spec.devices.iter().map(|device| &*device.name).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(config.buses[0].spec.devices[0].groups[0].period, Duration::from_secs(3));
}

#[test]
fn a_device_described_twice_names_both_places() {
    let device = "[bus.hall.device]\nm = { unit_id = 1, points.p = { input = 0 } }\n";
    let said = messages(&[("10.toml", &format!("{LINK}{device}")), ("20.toml", device)]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].starts_with("20.toml:2:1: bus.hall.device.m: device \"m\" is described twice, first at ")
    );
    assert!(said[0].contains("10.toml:4:1"), "{}", said[0]);
}

#[test]
fn one_name_for_devices_of_two_buses_is_refused_with_both_places_and_a_label_may_repeat() {
    let bus = |bus: &str, name: &str| {
        format!(
            "[bus.{bus}.link.modbus-tcp]\nhost = \"{bus}\"\n[bus.{bus}.device]\n\
             {name} = {{ unit_id = 1, label = \"Incomer\", points.p = {{ input = 0 }} }}\n"
        )
    };
    let (hall, roof) = (bus("hall", "meter-01"), bus("roof", "meter-01"));
    let one = format!("{hall}{roof}");
    for files in [vec![("20.toml", one.as_str())], vec![("10.toml", &hall), ("20.toml", &roof)]] {
        let said = messages(&files);
        let [said] = said.as_slice() else { panic!("one fault: {said:?}") };
        let (first, second) = if files.len() == 1 { ("20.toml:4:1", 8) } else { ("10.toml:4:1", 4) };
        assert!(
            said.starts_with(&format!(
                "20.toml:{second}:1: bus.roof.device.meter-01: a second device \"meter-01\", the first is at "
            )) && said.contains(first)
                && said.ends_with("on bus \"hall\"; give one of them another name: readings are sent, stored and shown under it; a label may repeat"),
            "{said}"
        );
    }
    // A third is one more; a bus whose link is not understood hides none; capitals make another name, as in a topic.
    assert_eq!(
        messages(&[("10.toml", &hall), ("20.toml", &roof), ("30.toml", &bus("shed", "meter-01"))]).len(),
        2
    );
    let wrong = roof.replace("modbus-tcp", "telex");
    let said = messages(&[("10.toml", &hall), ("20.toml", &wrong)]);
    assert!(said.len() == 2 && said[1].contains("a second device"), "{said:?}");
    assert_eq!(messages(&[("10.toml", &hall), ("20.toml", &bus("roof", "Meter-01"))]), [""; 0]);
}

#[test]
fn a_table_over_something_else_names_both_places() {
    let said = messages(&[("10.toml", "trust_rtc = true\n"), ("20.toml", "[trust_rtc]\n")]);
    assert!(said[0].contains("20.toml:1:2") && said[0].contains("10.toml:1:1"), "{said:?}");
}

#[test]
fn a_later_folder_replaces_a_file_of_the_same_name() {
    let folder = tempfile::tempdir().unwrap();
    let (vendor, local) = (folder.path().join("usr"), folder.path().join("etc"));
    for path in [&vendor, &local] {
        fs::create_dir_all(path.join("profiles")).unwrap();
    }
    fs::write(vendor.join("a.toml"), "gateway = \"vendor\"\n").unwrap();
    fs::write(vendor.join("b.toml"), "trust_rtc = true\n").unwrap();
    fs::write(vendor.join("c.toml"), "nonsense = 1\n").unwrap();
    fs::write(local.join("a.toml"), "gateway = \"local\"\n").unwrap();
    std::os::unix::fs::symlink("/dev/null", local.join("c.toml")).unwrap();
    fs::write(local.join("README"), "not = configuration").unwrap();
    let folders = Folders { config: vec![vendor, local], profiles: Vec::new(), named: false };
    let loaded = load(&folders);
    assert_eq!(loaded.faults, []);
    let config = loaded.config.unwrap();
    assert_eq!(&*config.gateway, "local");
    assert!(config.trust_rtc, "the vendor's other file still counts");
}

#[test]
fn a_device_says_more_than_its_profile_and_less_if_it_wants() {
    let text = format!(
        "{LINK}[bus.hall.device.m]\nunit_id = 1\nprofile = \"meter\"\nonly = [\"power\", \"extra\"]\n\
         [bus.hall.device.m.points]\npower = {{ unit = \"kW\", scale = 0.001 }}\nextra = {{ holding = 7, type = \"u16\" }}\n"
    );
    let config = config(&[("a.toml", &text), ("profiles/meter.toml", METER)]);
    let (device, info) = (&config.buses[0].spec.devices[0], &config.buses[0].devices[0]);
    let names: Vec<&str> = device.points.iter().map(|point| &*point.name).collect();
    assert_eq!(names, ["power", "extra"]);
    assert_eq!((&*info.points[0].unit, device.points[0].scaling.scale), ("kW", Some(0.001)));
    assert_eq!(info.headline, [0], "the headline's other point is not polled");
}

#[test]
fn like_meters_share_one_list_and_one_that_differs_has_its_own() {
    let text = format!(
        "{LINK}[bus.hall.device]\na = {{ unit_id = 1, profile = \"meter\" }}\nb = {{ unit_id = 2, profile = \"meter\" }}\n\
         c = {{ unit_id = 3, profile = \"meter\", points.power = {{ unit = \"kW\" }} }}\n"
    );
    let config = config(&[("a.toml", &text), ("profiles/meter.toml", METER)]);
    let [a, b, c] = &config.buses[0].devices[..] else { panic!("three devices") };
    assert!(Arc::ptr_eq(&a.points, &b.points), "ten thousand points of thirty kinds cost thirty lists");
    let power = |info: &crate::config::DeviceInfo| {
        info.points.iter().find(|point| &*point.name == "power").expect("power").unit.to_string()
    };
    assert_eq!((power(c), power(a) == "kW"), ("kW".to_owned(), false));
}

#[test]
fn a_device_whose_profile_has_no_points_is_a_fault_unless_it_has_its_own() {
    let device = |more: &str| {
        format!(
            "{LINK}[bus.hall.device]\na = {{ unit_id = 1, profile = \"p\"{more} }}\nb = {{ unit_id = 2, profile = \"p\"{more} }}\n"
        )
    };
    for profile in ["", "[points]\n", "name = \"a meter\"\n"] {
        assert_eq!(
            messages(&[("a.toml", &device("")), ("profiles/p.toml", profile)]),
            [
                "profiles/p.toml:1:1: a profile without points, and a device of it that has none of its own; add [points]"
            ],
            "once: {profile}"
        );
        let own = device(", points.p = { input = 0 }");
        assert_eq!(messages(&[("a.toml", &own), ("profiles/p.toml", profile)]), [""; 0]);
    }
    // What could not be read may have been the points.
    let said = messages(&[("a.toml", &device("")), ("profiles/p.toml", "[points]\np = { input 0 }\n")]);
    assert!(said.len() == 1 && !said[0].contains("without points"), "{said:?}");
}

#[test]
fn a_profile_says_nothing_that_belongs_to_one_device() {
    let profile = format!("unit_id = 3\nsorce = \"x\"\n{METER}");
    let said = messages(&[("a.toml", PLANT), ("profiles/eastron-sdm630.toml", &profile)]);
    assert_eq!(
        said,
        [
            "profiles/eastron-sdm630.toml:1:1: \"unit_id\" is not for all devices of a kind; write it at each device",
            "profiles/eastron-sdm630.toml:2:1: unknown key \"sorce\"; did you mean \"source\"?",
        ],
        "each once, although two devices use it"
    );
}

#[test]
fn the_hash_changes_with_every_file_that_has_a_say() {
    let hash = |plant: &str, meter: &str, other: &str| {
        let files =
            [("a.toml", plant), ("profiles/eastron-sdm630.toml", meter), ("profiles/other.toml", other)];
        config(&files).hash
    };
    let first = hash(PLANT, METER, "");
    assert_eq!(first.len(), 16);
    assert_eq!(first, hash(PLANT, METER, "not even = TOML!"), "nobody uses that profile");
    assert_ne!(first, hash(&format!("{PLANT}\n# a word\n"), METER, ""));
    assert_ne!(first, hash(PLANT, &METER.replace("kWh", "MWh"), ""));
}

#[test]
fn a_difference_names_what_a_reload_has_to_touch() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("profiles")).unwrap();
    fs::write(folder.path().join("profiles/eastron-sdm630.toml"), METER).unwrap();
    let plant = |text: &str| {
        fs::write(folder.path().join("a.toml"), text).unwrap();
        let loaded = load(&super::only(folder.path()));
        assert_eq!(loaded.faults, []);
        loaded.config.unwrap()
    };
    let old = plant(PLANT);
    assert_eq!(diff(&old, &plant(&format!("# moved down\n{PLANT}"))).len(), 0);
    let other = "[bus.b.link.modbus-tcp]\nhost = \"192.0.2.1\"\n";
    let cases = [
        (PLANT.replace("Incomer", "Main"), vec![Change::BusDescribed("hall".into())]),
        (PLANT.replace("\"2s\"", "\"3s\""), vec![Change::BusChanged("hall".into())]),
        (format!("{PLANT}{other}"), vec![Change::BusAdded("b".into())]),
        (
            PLANT.replace("hall", "wall"),
            vec![Change::BusRemoved("hall".into()), Change::BusAdded("wall".into())],
        ),
        (PLANT.replace(":8883", ":8884"), vec![Change::Uplink]),
        (format!("{PLANT}[spool]\ncommit_every = \"0s\"\n"), vec![Change::Spool]),
        (format!("page = false\n{PLANT}"), vec![Change::Page]),
        (format!("trust_rtc = true\n{PLANT}"), vec![Change::TrustRtc]),
        (
            PLANT.replace("plant7-gw1", "plant7-gw2"),
            vec![Change::Refused { key: "gateway", was: "plant7-gw1".into(), wanted: "plant7-gw2".into() }],
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(diff(&old, &plant(&text)), expected, "{text}");
    }
    let moved = plant(&format!("state_directory = \"/data\"\nruntime_directory = \"/tmp/x\"\n{PLANT}"));
    let refused: Vec<_> = diff(&old, &moved)
        .into_iter()
        .filter_map(|change| match change {
            Change::Refused { key, wanted, .. } => Some((key, wanted)),
            _ => None,
        })
        .collect();
    assert_eq!(refused, [("state_directory", "/data".into()), ("runtime_directory", "/tmp/x".into())]);
}
