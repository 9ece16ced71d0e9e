//! Finds cloned cards: a gateway id that moved to another machine.
//!
//! The file `identity` in the state directory remembers `gateway id` and `machine-id` of the last start. The same id on a different machine
//! means that this card is a copy (or was moved): two gateways with one id take each other's connection away, and their
//! readings mix. The remembered machine stays, so it is said at every start until somebody gives this gateway its own
//! id, or deletes the file to say that the move was meant.
//!
//! A file that is there and says something else is damaged: then nobody can tell, and writing it anew would call a copy the original.
//! It stays, and is said at every start, until a person who knows deletes it.
//!
//! A machine-id that is made anew at each boot (read-only image, first boot) proves nothing: it is apart as transient.

use std::fs;
use std::io;
use std::path::Path;

use super::crash_loop::write_whole;
use crate::mounts::{self, Mount};

/// What this machine calls itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Machine {
    /// 32 hexadecimal digits that stay (machine-id(5)).
    Fixed(String),
    /// Empty, `uninitialized`, unreadable, or not on disk: it may be another one at the next boot.
    Transient,
}

impl Machine {
    /// Reads `/etc/machine-id`. If something is mounted over the file, systemd made a transient one at boot
    /// (systemd-machine-id-commit(8)).
    pub fn read() -> Self {
        let id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
        Self::from_texts(&id, &mounts::all().unwrap_or_default())
    }

    fn from_texts(id: &str, mounts: &[Mount]) -> Self {
        let id = id.trim();
        let proper = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
        let mounted = mounts.iter().any(|mount| mount.point == "/etc/machine-id");
        if proper && !mounted { Self::Fixed(id.to_ascii_lowercase()) } else { Self::Transient }
    }
}

/// What the comparison said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Same machine, or nothing to compare with.
    Own,
    /// The id was last used on another machine.
    Cloned,
    /// What is remembered cannot be read: it is damaged.
    Unreadable,
}

/// Compares with the last start and remembers this one. The machine-id itself is not logged: it identifies the machine.
pub fn compare(state: &Path, gateway: &str, machine: &Machine) -> io::Result<Identity> {
    let Machine::Fixed(id) = machine else { return Ok(Identity::Own) };
    if gateway.is_empty() {
        return Ok(Identity::Own);
    }
    let path = state.join("identity");
    let known = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    // Without a byte it is what a power cut leaves of a new file: nothing was remembered yet.
    if !known.is_empty() {
        let Some((known_gateway, known_machine)) = parse(&known) else { return Ok(Identity::Unreadable) };
        if known_gateway == gateway && known_machine != id {
            return Ok(Identity::Cloned);
        }
    }
    let text = format!("{gateway}\n{id}\n");
    if text.as_bytes() != known {
        write_whole(&path, &text)?;
    }
    Ok(Identity::Own)
}

/// Compares, and gives what a person must know, if anything.
pub(super) fn look(state: &Path, gateway: &str, machine: &Machine) -> io::Result<Option<String>> {
    Ok(match compare(state, gateway, machine)? {
        Identity::Own => None,
        Identity::Cloned => Some(cloned(gateway, state)),
        Identity::Unreadable => Some(unreadable(gateway, state)),
    })
}

/// Gateway id and machine.
fn parse(bytes: &[u8]) -> Option<(&str, &str)> {
    let (gateway, machine) = std::str::from_utf8(bytes).ok()?.trim_end().split_once('\n')?;
    let hexadecimal = machine.bytes().all(|b| b.is_ascii_hexdigit());
    (!gateway.is_empty() && machine.len() == 32 && hexadecimal).then_some((gateway, machine))
}

/// The sentence for page, status and log where the file is damaged.
pub fn unreadable(gateway: &str, state: &Path) -> String {
    let file = state.join("identity").display().to_string();
    format!(
        "Whether this card is a copy cannot be told, because {file} is damaged: if no other gateway uses the id \
         {gateway}, delete it (sudo rm {file}) and the next start writes it anew; else set another `gateway` here first"
    )
}

/// The sentence for page, status and log where another machine is remembered.
pub fn cloned(gateway: &str, state: &Path) -> String {
    format!(
        "The gateway id {gateway} was used on another machine before: if this card is a copy, set another \
         `gateway` here; if the card was moved on purpose, delete {}",
        state.join("identity").display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0123456789abcdef0123456789abcdef";
    const OTHER: &str = "fedcba9876543210fedcba9876543210";

    fn fixed(id: &str) -> Machine {
        Machine::from_texts(id, &[])
    }

    #[test]
    fn a_cloned_card_is_told_at_every_start_until_its_id_changes() {
        let dir = tempfile::tempdir().unwrap();
        let compare = |gateway, machine| compare(dir.path(), gateway, &fixed(machine)).unwrap();
        assert_eq!(compare("gw1", ONE), Identity::Own);
        assert_eq!(compare("gw1", ONE), Identity::Own);
        assert_eq!(compare("gw1", OTHER), Identity::Cloned);
        assert_eq!(compare("gw1", OTHER), Identity::Cloned);
        assert_eq!(compare("gw2", OTHER), Identity::Own);
        assert_eq!(compare("gw2", OTHER), Identity::Own);
    }

    #[test]
    fn a_damaged_file_is_told_at_every_start_and_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("identity");
        let swapped = format!("{ONE}\ngw1\n");
        for damage in
            ["\u{0}\u{0}\u{0}".as_bytes(), b"\xff\xfe\n\xff", b"gw1\n0123\n", b"gw1", swapped.as_bytes()]
        {
            fs::write(&file, damage).unwrap();
            for _ in 0..2 {
                assert_eq!(
                    compare(dir.path(), "gw1", &fixed(ONE)).unwrap(),
                    Identity::Unreadable,
                    "{damage:?}"
                );
            }
            assert_eq!(fs::read(&file).unwrap(), damage, "a copy is not called the original");
        }
        assert!(unreadable("gw1", dir.path()).contains(&format!("sudo rm {}", file.display())));
        for nothing in [fs::remove_file, |file: &_| fs::write(file, "")] {
            nothing(&file).unwrap();
            assert_eq!(compare(dir.path(), "gw1", &fixed(ONE)).unwrap(), Identity::Own);
        }
        assert_eq!(compare(dir.path(), "gw1", &fixed(OTHER)).unwrap(), Identity::Cloned);
    }

    #[test]
    fn what_a_person_must_know_begins_like_every_other_warning() {
        for words in [cloned("gw1", Path::new("state")), unreadable("gw1", Path::new("state"))] {
            assert!(words.starts_with(char::is_uppercase), "{words}");
        }
    }

    #[test]
    fn a_transient_machine_id_proves_nothing() {
        for id in ["", "\n", "uninitialized\n", "0123", "zz23456789abcdef0123456789abcdef"] {
            assert_eq!(fixed(id), Machine::Transient, "{id:?}");
        }
        let over = mounts::parse("36 25 0:30 / /etc/machine-id ro - tmpfs tmpfs rw");
        assert_eq!(Machine::from_texts(ONE, &over), Machine::Transient);
        let dir = tempfile::tempdir().unwrap();
        compare(dir.path(), "gw1", &fixed(ONE)).unwrap();
        assert_eq!(compare(dir.path(), "gw1", &Machine::Transient).unwrap(), Identity::Own);
    }
}
