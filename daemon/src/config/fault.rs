//! What is wrong with the configuration, where, and what to do about it; printed like a compiler's message.
//!
//! A message is always one line, whatever stood in the file: text taken from it is quoted, shortened, and its
//! control characters are escaped.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::service::may_be_given;
use super::words::one_line;

/// A character in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as it was opened.
    pub file: Arc<Path>,
    /// From 1; 0 means the file as a whole.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
}

impl Place {
    /// The file as a whole.
    pub fn file(file: Arc<Path>) -> Self {
        Self { file, line: 0, column: 0 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        Ok(())
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Where; `None` where no file says anything about it.
    pub place: Option<Place>,
    /// The table or key concerned, as a path: `bus.hall.device.meter-01`; empty for the document as a whole.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
    /// The text could not be parsed here: other faults of the same line only follow from this one.
    pub is_syntax: bool,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = String::new();
        if let Some(place) = &self.place {
            write!(words, "{place}: ")?;
        }
        if !self.key.is_empty() {
            write!(words, "{}: ", self.key)?;
        }
        words.push_str(&self.what);
        if !self.remedy.is_empty() {
            write!(words, "; {}", self.remedy)?;
        }
        f.write_str(&one_line(&words))
    }
}

/// A file that could not be looked at as this user: no fault, but no blessing either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unchecked {
    /// The file or folder.
    pub path: PathBuf,
    /// Why, and what would help.
    pub why: String,
}

impl fmt::Display for Unchecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&format!("{}: not checked: {}", self.path.display(), self.why)))
    }
}

impl Unchecked {
    /// What to do about it where it is no check but the thing itself: the daemon runs as a user that may not read its configuration.
    pub fn denied(&self) -> String {
        let path = self.path.display();
        let remedy = if may_be_given(&self.path) {
            format!("run: chgrp -R fieldspool {path} && chmod -R g+rX {path}")
        } else {
            "put the configuration into a folder of its own: /etc/fieldspool".to_owned()
        };
        one_line(&format!("{path}: cannot be read by the user that this runs as; {remedy}"))
    }
}
