//! What can go wrong with the spool, when, and who acts.
//!
//! After opening, trouble with the disk is not an error of the handle: sampling goes on, the state stands on the
//! [`Board`](crate::status::Board), and the writer heals by itself. Errors of single questions are for the asker.

use std::path::PathBuf;

/// Why the spool could not be opened, or a question to it not be answered.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another instance holds the state directory. Exit 75; a person stops the other one.
    #[error("{} is already in use by another fieldspool{}: stop it first (systemctl stop fieldspool), or give this one its own state_directory", .directory.display(), by(*.pid))]
    Locked {
        /// The state directory.
        directory: PathBuf,
        /// Who holds it, if it says so.
        pid: Option<u32>,
    },
    /// `require_durable = true` and the directory does not survive a power cut. Exit 78; a person moves it.
    #[error("{} does not survive a power cut ({why}) and require_durable = true: put the state on a real disk, or set require_durable = false", .directory.display())]
    NotDurable {
        /// The state directory.
        directory: PathBuf,
        /// What it is: `tmpfs`, `nfs`, ...
        why: String,
    },
    /// The file cannot be read or written now. Ask again later.
    #[error("the spool cannot be used now: {0}")]
    Unavailable(String),
    /// The file is made by a newer version of fieldspool. Use that version.
    #[error("{} is made by a newer fieldspool (schema {found}, this one knows {known}): use that version to read it", .file.display())]
    Newer {
        /// The file.
        file: PathBuf,
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The file is no spool, or damaged beyond this question.
    #[error("{} is damaged or no spool: {what}", .file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What was found.
        what: String,
    },
    /// What was asked for does not exist here. A person looks at what was typed.
    #[error("{0}")]
    NotThere(String),
    /// The deadline passed before everything was stored.
    #[error("not everything could be stored in time: {0}")]
    Late(String),
    /// The spool is closed or its thread is gone.
    #[error("the spool is closed")]
    Closed,
}

fn by(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

impl SpoolError {
    /// The exit code of a process that cannot go on because of it (sysexits).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Locked { .. } => 75,
            Self::NotDurable { .. } | Self::Newer { .. } => 78,
            Self::NotThere(_) => 66,
            Self::Unavailable(_) | Self::Damaged { .. } | Self::Late(_) | Self::Closed => 74,
        }
    }
}
