//! What the load goes to: a collector of its own in a temporary directory, one
//! that runs already, or a bare server as the floor.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use procwarden_common::token::Token;
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use tempfile::TempDir;

use super::bare::Bare;
use crate::collector::Collector;
use crate::usage::Usage;

/// Which collector is measured.
#[derive(Debug, Clone)]
pub enum Where {
    /// One of its own, in a directory below this one.
    Own(PathBuf),
    /// One that runs.
    Given {
        /// File with an enrolment token of as many uses as there are agents.
        token_file: PathBuf,
        /// PEM of the fleet's CA.
        ca_file: PathBuf,
        /// Its process, to measure it as well.
        pid: Option<u32>,
    },
}

/// See the module. What it started ends with it.
pub(super) struct Target {
    kind: Kind,
    ca: CertificateDer<'static>,
}

enum Kind {
    Own {
        collector: Box<Collector>,
        token: Token,
        _directory: TempDir,
    },
    Given {
        token: Token,
        pid: Option<u32>,
    },
    Bare(Bare),
}

impl Target {
    /// Starts or finds the collector.
    ///
    /// # Errors
    /// When it cannot be found, or a directory cannot be made.
    pub(super) fn collector(place: &Where, agents: usize) -> anyhow::Result<Self> {
        match place {
            Where::Own(below) => Self::own(below, agents),
            Where::Given {
                token_file,
                ca_file,
                pid,
            } => Ok(Self {
                kind: Kind::Given {
                    token: read_token(token_file)?,
                    pid: *pid,
                },
                ca: CertificateDer::from_pem_file(ca_file).context("cannot read the CA")?,
            }),
        }
    }

    fn own(below: &Path, agents: usize) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("procwarden-load-")
            .tempdir_in(below)?;
        let mut collector = Collector::init(directory.path(), None).with_default_alerts();
        collector.start();
        let uses = agents.to_string();
        let token = collector.token(&["--ttl", "24h", "--uses", &uses]);
        let ca = collector.data_dir().join("ca/ca.pem");
        Ok(Self {
            kind: Kind::Own {
                collector: Box::new(collector),
                token: Token::parse(&token)?,
                _directory: directory,
            },
            ca: CertificateDer::from_pem_file(ca).context("cannot read the CA")?,
        })
    }

    /// Starts a server that has TLS, HTTP/2 and the protocol, and nothing else.
    pub(super) fn floor() -> anyhow::Result<Self> {
        let bare = Bare::start()?;
        let ca = bare.ca.clone();
        Ok(Self {
            kind: Kind::Bare(bare),
            ca,
        })
    }

    /// With which hosts enrol.
    pub(super) fn token(&self) -> anyhow::Result<&Token> {
        match &self.kind {
            Kind::Own { token, .. } | Kind::Given { token, .. } => Ok(token),
            Kind::Bare(_) => bail!("nobody enrols at a bare server"),
        }
    }

    pub(super) fn ca(&self) -> &CertificateDer<'static> {
        &self.ca
    }

    /// The identity that all hosts of a bare server share; none elsewhere.
    pub(super) fn floor_host(&self) -> anyhow::Result<Option<Arc<ClientConfig>>> {
        match &self.kind {
            Kind::Bare(bare) => bare.client().map(Some),
            Kind::Own { .. } | Kind::Given { .. } => Ok(None),
        }
    }

    /// The collector that was started here.
    pub(super) fn own_collector(&mut self) -> anyhow::Result<&mut Collector> {
        match &mut self.kind {
            Kind::Own { collector, .. } => Ok(collector),
            Kind::Given { .. } | Kind::Bare(_) => {
                bail!("this works only with a collector of its own: leave --token-file out")
            }
        }
    }

    pub(super) fn fleet_address(&self) -> &str {
        match &self.kind {
            Kind::Own { collector, .. } => &collector.addresses().fleet,
            Kind::Given { .. } => "",
            Kind::Bare(bare) => &bare.address,
        }
    }

    /// By how many bytes of journal the index is behind, where that can be
    /// asked.
    ///
    /// # Errors
    /// When a collector of its own does not say.
    pub(super) fn index_lag(&self) -> anyhow::Result<Option<u64>> {
        let Kind::Own { collector, .. } = &self.kind else {
            return Ok(None);
        };
        let output = collector.operator(&["--json", "status"]);
        let status: Value = serde_json::from_slice(&output.stdout).with_context(|| {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            format!("the collector shows no status: {said}")
        })?;
        Ok(status["index_lag_bytes"].as_u64())
    }

    /// What the server uses; nothing when its process is not known.
    pub(super) fn usage(&self) -> anyhow::Result<Option<Usage>> {
        let pid = match &self.kind {
            Kind::Own { collector, .. } => Some(collector.process().pid()),
            Kind::Given { pid, .. } => *pid,
            Kind::Bare(bare) => Some(bare.pid()),
        };
        pid.map(Usage::of).transpose()
    }
}

fn read_token(file: &Path) -> anyhow::Result<Token> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the token in {}", file.display()))?;
    Ok(Token::parse(text.trim())?)
}
