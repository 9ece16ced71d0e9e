//! The page for the technician beside the cabinet.

pub mod config;

pub use config::{CertificateFiles, PageConfig};
