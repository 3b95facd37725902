//! Importing what other programs were configured with: text in, settings and
//! remarks out. Never reads a file.

pub mod csf;
