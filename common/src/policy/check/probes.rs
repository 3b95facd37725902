//! Texts that patterns are tried on, and what they cover of them.

use super::Words;
use crate::policy::RuleKey;
use crate::policy::matcher::Matchers;
use crate::policy::parse::Parsed;

/// Programs that run what others wrote, where distributions and panels put
/// them.
pub(super) const INTERPRETERS: &[&str] = &[
    "/bin/bash",
    "/bin/sh",
    "/usr/bin/awk",
    "/usr/bin/bash",
    "/usr/bin/busybox",
    "/usr/bin/dash",
    "/usr/bin/gawk",
    "/usr/bin/java",
    "/usr/bin/ksh",
    "/usr/bin/lua",
    "/usr/bin/lua5.4",
    "/usr/bin/mawk",
    "/usr/bin/node",
    "/usr/bin/nodejs",
    "/usr/bin/perl",
    "/usr/bin/php",
    "/usr/bin/php8.2",
    "/usr/bin/php-cgi",
    "/usr/bin/python",
    "/usr/bin/python2.7",
    "/usr/bin/python3",
    "/usr/bin/python3.11",
    "/usr/bin/ruby",
    "/usr/bin/ruby3.1",
    "/usr/bin/sh",
    "/usr/bin/tclsh",
    "/usr/bin/zsh",
    "/usr/libexec/platform-python3.6",
    "/usr/local/bin/lsphp",
    "/usr/local/bin/node",
    "/usr/local/bin/perl",
    "/usr/local/bin/php",
    "/usr/local/bin/python3",
    "/usr/local/cpanel/3rdparty/bin/perl",
    "/usr/local/lsws/fcgi-bin/lsphp",
    "/usr/sbin/php-fpm",
    "/usr/sbin/php-fpm8.2",
    "/opt/alt/php82/usr/bin/lsphp",
    "/opt/alt/php82/usr/bin/php",
    "/opt/alt/python311/bin/python3",
    "/opt/cpanel/ea-php82/root/usr/bin/php",
    "/opt/cpanel/ea-php82/root/usr/bin/php-cgi",
    "/opt/cpanel/ea-php82/root/usr/sbin/php-fpm",
    "/opt/plesk/php/8.2/bin/php",
    "/opt/plesk/php/8.2/sbin/php-fpm",
    "/usr/local/php82/sbin/php-fpm82",
    "/usr/sbin/sw-engine-fpm",
];

/// A program in each place that ordinary accounts can write to.
const WRITABLE: &[(&str, &str)] = &[
    ("/tmp/", "/tmp/x"),
    ("/tmp/", "/tmp/.ICE-unix/kworker"),
    ("/var/tmp/", "/var/tmp/x"),
    ("/dev/shm/", "/dev/shm/x"),
    ("/run/user/", "/run/user/1000/x"),
    ("/home/", "/home/bob/x"),
    ("/home/", "/home/bob/public_html/cgi-bin/x"),
];

const EXECUTABLES: &[&str] = &[
    "/usr/sbin/sshd",
    "/usr/lib/systemd/systemd-journald",
    "/usr/sbin/mysqld",
    "/usr/libexec/dovecot/imap",
    "/usr/local/bin/tool",
    "/usr/bin/perl",
    "/usr/sbin/httpd",
    "/sbin/agetty",
    "/opt/vendor/agent/bin/agent",
    "/home/bob/bin/server",
    "/tmp/.x/payload",
    "/var/lib/app/run",
    "/usr/bin/gone (deleted)",
    "/memfd:x (deleted)",
];

const COMMAND_LINES: &[&str] = &[
    "/usr/sbin/sshd -D",
    "sshd: bob@pts/0",
    "/usr/sbin/httpd -k start",
    "nginx: worker process",
    "php-fpm: pool www",
    "/usr/bin/perl /usr/local/bin/report.pl --daily",
    "python3 -m http.server 8080",
    "-bash",
    "sh -c sleep 60; ./x",
    "[kworker/0:1]",
    "spamd child",
    "dovecot/imap",
    "./x",
    "java -jar app.jar -Xmx512m",
];

const ACCOUNTS: &[&str] = &[
    "bob",
    "alice.smith",
    "user_1",
    "web42",
    "nobody",
    "www-data",
    "mysql",
    "postfix",
    "deploy",
    "1001",
    "root",
    "shop-example",
];

/// Accounts of daemons: they have no shell, and people own none of them.
pub(super) const SERVICE_ACCOUNTS: &[&str] = &[
    "avahi",
    "bind",
    "chrony",
    "clamav",
    "cpanel",
    "cpanelconnecttrack",
    "cpses",
    "daemon",
    "dbus",
    "dovecot",
    "dovenull",
    "exim",
    "Debian-exim",
    "mail",
    "mailnull",
    "memcached",
    "messagebus",
    "mongod",
    "mysql",
    "named",
    "nscd",
    "nslcd",
    "ntp",
    "ntpsec",
    "polkitd",
    "postfix",
    "postgres",
    "proftpd",
    "rabbitmq",
    "redis",
    "rpc",
    "rpcuser",
    "rtkit",
    "smmsp",
    "sshd",
    "syslog",
    "systemd-network",
    "systemd-resolve",
    "systemd-timesync",
    "tss",
    "unbound",
    "uuidd",
    "varnish",
    "zabbix",
];

/// What one pattern covers.
#[derive(Debug, Clone, Default)]
pub(super) struct Hits {
    pub(super) interpreter: Option<&'static str>,
    pub(super) writable: Option<&'static str>,
    empty: bool,
    ordinary: usize,
    ordinary_of: usize,
}

impl Hits {
    /// Rule by rule: every text is read once for all patterns.
    pub(super) fn of(matchers: &Matchers, rules: &[Parsed]) -> Vec<Self> {
        let mut hits = vec![Self::default(); rules.len()];
        let mut probe = |key, text: &str, note: &dyn Fn(&mut Self)| {
            for index in matchers.patterns_on(key, text) {
                hits.get_mut(index).into_iter().for_each(note);
            }
        };
        let families = [
            (RuleKey::Pexe, EXECUTABLES),
            (RuleKey::Pcmd, COMMAND_LINES),
            (RuleKey::Puser, ACCOUNTS),
        ];
        for (key, texts) in families {
            probe(key, "", &|hits| hits.empty = true);
            for text in texts {
                probe(key, text, &|hits| {
                    hits.ordinary += 1;
                    hits.ordinary_of = texts.len();
                });
            }
        }
        for path in INTERPRETERS {
            probe(RuleKey::Pexe, path, &|hits| {
                hits.interpreter.get_or_insert(path);
            });
        }
        for (place, path) in WRITABLE {
            probe(RuleKey::Pexe, path, &|hits| {
                hits.writable.get_or_insert(place);
            });
        }
        hits
    }

    /// Why the pattern is far too broad: nothing else about it matters then.
    pub(super) fn broad(&self, what: &str) -> Option<Words> {
        if self.ordinary > 0 && self.ordinary * 4 >= self.ordinary_of * 3 {
            let message = format!(
                "this covers nearly every {what}: {} of {} ordinary ones [everything]",
                self.ordinary, self.ordinary_of
            );
            return Some((message, "write the fixed part of the text out".into()));
        }
        self.empty.then(|| {
            let message = format!("this covers an empty {what} [empty]");
            (message, "let it ask for one character at least".into())
        })
    }
}
