//! A mail server that refuses the recipients it is told to refuse, and speaks
//! TLS and AUTH when it is told to.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::config::SmtpTls;

/// Recipients of one mail, and its text.
pub(in crate::alert) type Received = (Vec<String>, String);

/// Handle on the server; it ends with the test's runtime.
#[derive(Clone)]
pub(in crate::alert) struct SmtpStub {
    pub(in crate::alert) address: SocketAddr,
    /// PEM of the certificate, which is its own authority.
    pub(in crate::alert) ca_pem: String,
    /// Recipients that get a 550.
    pub(in crate::alert) refused: Arc<Mutex<BTreeSet<String>>>,
    pub(in crate::alert) mails: Arc<Mutex<Vec<Received>>>,
    /// Every line that was heard outside of TLS.
    pub(in crate::alert) heard_in_the_clear: Arc<Mutex<Vec<String>>>,
    /// What AUTH gave, decoded.
    pub(in crate::alert) logins: Arc<Mutex<Vec<Vec<u8>>>>,
    mode: SmtpTls,
}

impl SmtpStub {
    pub(in crate::alert) async fn start(mode: SmtpTls, refused: &[&str]) -> Self {
        let (acceptor, ca_pem) = tls();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stub = Self {
            address: listener.local_addr().unwrap(),
            ca_pem,
            refused: Arc::new(Mutex::new(
                refused.iter().map(ToString::to_string).collect(),
            )),
            mails: Arc::default(),
            heard_in_the_clear: Arc::default(),
            logins: Arc::default(),
            mode,
        };
        let server = stub.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (server, acceptor) = (server.clone(), acceptor.clone());
                tokio::spawn(async move {
                    if server.mode == SmtpTls::Implicit {
                        let stream = acceptor.accept(stream).await?;
                        return server
                            .converse(BufReader::new(stream), true, true)
                            .await
                            .map(drop);
                    }
                    let plain = BufReader::new(stream);
                    match server.converse(plain, false, true).await? {
                        Some(plain) => {
                            let stream = acceptor.accept(plain.into_inner()).await?;
                            server
                                .converse(BufReader::new(stream), true, false)
                                .await
                                .map(drop)
                        }
                        None => Ok(()),
                    }
                });
            }
        });
        stub
    }

    /// Talks until the end, or until the client wants to start TLS.
    async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut stream: BufReader<S>,
        secured: bool,
        greet: bool,
    ) -> std::io::Result<Option<BufReader<S>>> {
        if greet {
            stream.write_all(b"220 stub\r\n").await?;
            stream.flush().await?;
        }
        let mut to = Vec::new();
        let mut line = String::new();
        while stream.read_line(&mut line).await? > 0 {
            let command = std::mem::take(&mut line);
            if !secured {
                self.heard_in_the_clear
                    .lock()
                    .unwrap()
                    .push(command.clone());
            }
            let mut answer = "250 ok\r\n";
            if command.starts_with("EHLO") {
                answer = match (self.mode, secured) {
                    (SmtpTls::Starttls, false) => "250-stub\r\n250 STARTTLS\r\n",
                    _ => "250-stub\r\n250 AUTH PLAIN LOGIN\r\n",
                };
            } else if command.starts_with("STARTTLS") {
                stream.write_all(b"220 go\r\n").await?;
                return Ok(Some(stream));
            } else if let Some(login) = command.strip_prefix("AUTH PLAIN ") {
                let login = data_encoding::BASE64
                    .decode(login.trim().as_bytes())
                    .unwrap();
                self.logins.lock().unwrap().push(login);
                answer = "235 welcome\r\n";
            } else if let Some(rest) = command.strip_prefix("RCPT TO:<") {
                let address = rest.split('>').next().unwrap_or_default().to_owned();
                if self.refused.lock().unwrap().contains(&address) {
                    answer = "550 no such\u{1b}[2J user\r\n";
                } else {
                    to.push(address);
                }
            } else if command.starts_with("DATA") {
                stream.write_all(b"354 go\r\n").await?;
                stream.flush().await?;
                let mut text = String::new();
                while !text.ends_with("\r\n.\r\n") && stream.read_line(&mut text).await? > 0 {}
                self.mails
                    .lock()
                    .unwrap()
                    .push((std::mem::take(&mut to), text));
            }
            stream.write_all(answer.as_bytes()).await?;
            stream.flush().await?;
        }
        Ok(None)
    }
}

/// A certificate for this machine, which is its own authority.
fn tls() -> (TlsAcceptor, String) {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), made.cert.pem())
}
