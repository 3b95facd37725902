//! `procwarden import`: what another program was configured with becomes one
//! revision of a policy.
//!
//! Promises: all or nothing. Any error in any of the files ends the command
//! with exit code 2 before anything is sent, and rules and settings are
//! published together.

use std::path::{Path, PathBuf};

use procwarden_common::clock::UnixMillis;
use procwarden_common::import::csf::{self, Imported};
use procwarden_common::printable::printable_line;

use crate::cli::{ImportCommand, ImportCsfArgs};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;
use crate::policy::local::copied::{Place, Root};
use crate::policy::local::{self, LocalPolicy};
use crate::policy::publish::{self, NOTHING_PUBLISHED};
use crate::table::Table;

mod report;

pub(crate) async fn run(command: ImportCommand, context: &mut Context) -> Result<(), Failure> {
    let ImportCommand::Csf(args) = command;
    let import = read(&args, context.now());
    let outcome = import.say(args.how.strict, &mut context.out);
    if args.dry_run && context.out.json() {
        let report = report::of(&import, &args.policy, outcome.is_ok());
        context.out.object(&report)?;
    }
    outcome?;
    if args.dry_run {
        return import.show(&mut context.out);
    }
    let local = import.local;
    let told = publish::publish(args.policy, args.comment, args.how, local, context).await?;
    told.say(Some("published"), context)
}

/// Everything that was read, errors included.
#[derive(Default)]
struct Import {
    local: LocalPolicy,
    /// Name of the csf.conf, in printable form.
    conf: String,
    /// What it says; its settings are among what was read.
    imported: Imported,
    /// Where each included file was read on this machine.
    places: Vec<PathBuf>,
}

/// A file that cannot be read is as good a reason to stop as a wrong line, and
/// hides no other.
fn read(args: &ImportCsfArgs, now: UnixMillis) -> Import {
    let root = match args.root.as_deref().map(|path| (path, Root::open(path))) {
        None => None,
        Some((_, Ok(root))) => Some(root),
        Some((path, Err(error))) => return Import::refused(path, &error.to_string()),
    };
    let first = Place::named(&args.pignore, root.as_ref());
    let local = local::load_csf(&args.pignore, &first, now);
    let included = local.files.iter().skip(1);
    let places = included.map(|file| first.included(&file.path).path());
    let mut import = Import {
        places: places.collect(),
        local,
        ..Import::default()
    };
    if let Some(conf) = &args.conf {
        import.read_conf(conf, root.as_ref());
    }
    import
}

impl Import {
    /// Without the copy nothing tells which file is meant.
    fn refused(root: &Path, reason: &str) -> Self {
        let mut import = Self::default();
        import.local.refuse(root, reason);
        import
    }

    fn read_conf(&mut self, conf: &Path, root: Option<&Root>) {
        self.conf = local::shown(conf);
        let content = match Place::named(conf, root).read() {
            Ok(content) => content,
            Err(reason) => return self.local.refuse(conf, &reason),
        };
        match csf::read_conf(&self.conf, &content) {
            Ok(mut imported) => {
                let name = format!("settings from {}", self.conf);
                let settings = std::mem::take(&mut imported.settings);
                self.local.set_settings(name, settings);
                self.imported = imported;
            }
            Err(errors) => self.local.diagnostics.extend(errors),
        }
    }

    /// Says what was taken, what differs and what has no counterpart; fails
    /// when anything is an error, with `strict` also when there is a warning.
    fn say(&self, strict: bool, out: &mut Output) -> Result<(), Failure> {
        if out.json() {
            report::write_remarks(self, out)?;
        } else if !self.imported.remarks.is_empty() {
            out.table(&self.table())?;
        }
        self.local.report(out, strict, NOTHING_PUBLISHED)?;
        self.say_more(out);
        out.remark(&format!(
            "{} rule(s) in {} file(s), {} setting(s)",
            self.local.rules,
            self.local.files.len(),
            self.imported
                .remarks
                .iter()
                .filter(|r| r.setting.is_some())
                .count()
        ));
        Ok(())
    }

    /// What no line of the files shows.
    fn say_more(&self, out: &Output) {
        let included = self.local.files.iter().skip(1);
        for (file, place) in included.zip(&self.places) {
            let place = local::shown(place);
            out.remark(&format!(
                "Include {} was read on this machine, from {place}",
                file.path
            ));
        }
        if !self.imported.missing.is_empty() {
            out.remark(&format!(
                "{} does not set {}: lfd takes what is missing as 0 or nothing; here nothing was \
                 set, so the other policies and the defaults of each host hold",
                self.conf,
                self.imported.missing.join(", ")
            ));
        }
        if let Some(section) = self.imported.agent_toml() {
            out.remark("for the agent.toml of hosts that shall act as lfd did:");
            section.lines().for_each(|line| out.remark(line));
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&["LINE", "CSF.CONF", "VALUE", "RESULT", "SETTING", "REMARK"]);
        for remark in &self.imported.remarks {
            table.row([
                remark.line.to_string().into(),
                remark.key.as_str().into(),
                remark.value.as_str().into(),
                remark.fate.as_str().into(),
                remark.setting.as_deref().unwrap_or_default().into(),
                remark.message.as_str().into(),
            ]);
        }
        table
    }

    /// Prints the revision as it would be published.
    fn show(&self, out: &mut Output) -> Result<(), Failure> {
        if out.json() {
            return Ok(());
        }
        for file in &self.local.files {
            out.line(&format!("--- {}", file.path))?;
            for line in file.content.split_inclusive(|&byte| byte == b'\n') {
                let line = line.strip_suffix(b"\n").unwrap_or(line);
                out.line(&printable_line(line))?;
            }
        }
        if let Some(settings) = &self.local.settings {
            out.line("--- settings")?;
            for line in settings.lines() {
                out.line(line)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use procwarden_common::diagnostic::Diagnostic;

    use super::*;
    use crate::cli::PublishArgs;

    fn written(directory: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(&path, text).expect("written");
        path
    }

    fn args(pignore: &Path, conf: Option<&Path>) -> ImportCsfArgs {
        ImportCsfArgs {
            pignore: pignore.to_owned(),
            conf: conf.map(Path::to_owned),
            root: None,
            policy: "web".into(),
            comment: "why".into(),
            dry_run: false,
            how: PublishArgs::default(),
        }
    }

    fn say(import: &Import, strict: bool) -> Result<(), Failure> {
        import.say(strict, &mut Output::to_nobody(true))
    }

    #[test]
    fn rules_includes_and_settings_are_read_together() {
        let dir = tempfile::tempdir().expect("a directory");
        written(&dir, "more", "exe:/usr/bin/b\n");
        let pignore = written(&dir, "csf.pignore", "pexe:/a|/b\nInclude more\n");
        let conf = written(&dir, "csf.conf", "TCP_IN = \"22\"\nPT_LIMIT = \"90\"\n");
        let import = read(&args(&pignore, Some(&conf)), UnixMillis(0));
        assert!(say(&import, false).is_ok());
        assert_eq!(say(&import, true).expect_err("a warning").exit_code(), 2);
        assert_eq!(import.local.diagnostics.len(), 1, "both readings of '|'");
        assert_eq!(import.local.published_name(), Some("csf.pignore"));
        assert_eq!(import.places, [dir.path().join("more")]);
        let settings = import.local.settings.expect("settings");
        assert!(settings.contains("min_age_secs = 90"), "{settings}");
    }

    #[test]
    fn includes_of_a_copied_tree_are_found_below_its_root() {
        let dir = tempfile::tempdir().expect("a directory");
        let pignore = written(
            &dir,
            "etc/csf/csf.pignore",
            "Include /etc/csf/more\nInclude /nonexistent/gone\n",
        );
        written(&dir, "etc/csf/more", "exe:/usr/bin/b\n");
        let mut args = args(&pignore, None);
        let errors = |import: Import| import.local.diagnostics;
        assert_eq!(errors(read(&args, UnixMillis(0))).len(), 2);
        args.root = Some(dir.path().to_owned());
        let import = read(&args, UnixMillis(0));
        assert_eq!(import.places, [dir.path().join("etc/csf/more")]);
        assert_eq!(import.local.files[1].path, "/etc/csf/more");
        let [error] = errors(import).try_into().expect("one error");
        assert_eq!(error.line, 2, "{error}");
    }

    #[test]
    fn links_of_a_copied_tree_are_followed_within_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let link = |target: &Path, path: &str| {
            std::os::unix::fs::symlink(target, dir.path().join(path)).expect("linked");
        };
        let secret = written(&dir, "secret", "exe:/secret\n");
        written(&dir, "copy/usr/csf/pignore", "Include more\nInclude gone\n");
        written(&dir, "copy/usr/csf/conf", "PT_LIMIT = \"90\"\n");
        written(&dir, "copy/etc/csf/more", "exe:/usr/bin/b\n");
        link(Path::new("/usr/csf/pignore"), "copy/etc/csf/csf.pignore");
        link(Path::new("/usr/csf/conf"), "copy/etc/csf/csf.conf");
        link(&secret, "copy/etc/csf/gone");
        let (pignore, conf) = (
            dir.path().join("copy/etc/csf/csf.pignore"),
            dir.path().join("copy/etc/csf/csf.conf"),
        );
        let mut args = args(&pignore, Some(&conf));
        args.root = Some(dir.path().join("copy"));
        let import = read(&args, UnixMillis(0));
        let settings = import.local.settings.expect("settings");
        assert!(settings.contains("min_age_secs = 90"), "{settings}");
        let read = import.local.files.iter().map(|file| file.path.as_str());
        assert_eq!(read.skip(1).collect::<Vec<_>>(), ["more"]);
        let [error] = import.local.diagnostics.try_into().expect("one error");
        assert_eq!(error.line, 2, "{error}");
        assert!(error.file.ends_with("csf.pignore"), "{error}");
        assert!(
            error.message.contains("/secret, which is not in"),
            "{error}"
        );
    }

    #[test]
    fn files_of_a_copied_tree_that_lie_elsewhere_are_not_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let secret = written(&dir, "secret", "exe:/secret\n");
        let file = written(&dir, "copy/a", "").with_file_name("link");
        std::os::unix::fs::symlink(secret, &file).expect("linked");
        let mut args = args(&file, Some(&file));
        args.root = Some(dir.path().join("copy"));
        let said = read(&args, UnixMillis(0)).local.diagnostics;
        assert_eq!(said.len(), 2, "{said:?}");
        let is_said = |error: &Diagnostic| error.message.contains("/secret, which is not in");
        assert!(said.iter().all(is_said), "{said:?}");

        args.root = Some(dir.path().join("gone"));
        let [error] = read(&args, UnixMillis(0))
            .local
            .diagnostics
            .try_into()
            .expect("one");
        assert!(error.file.ends_with("/gone"), "{error}");
    }

    #[test]
    fn comments_that_look_like_facts_do_not_stop_an_import() {
        let dir = tempfile::tempdir().expect("a directory");
        let pignore = written(
            &dir,
            "csf.pignore",
            "#@ do not touch\nexe:/a\nInclude more\n#@ end\n",
        );
        written(&dir, "more", "#@ expires=soon\nexe:/b\n");
        let import = read(&args(&pignore, None), UnixMillis(0));
        assert!(
            say(&import, false).is_ok(),
            "{:?}",
            import.local.diagnostics
        );
        assert_eq!(import.local.rules, 2);
        let named = import.local.diagnostics.iter();
        let named: Vec<_> = named.map(|d| (d.file.ends_with("more"), d.line)).collect();
        assert_eq!(named, [(false, 1), (false, 4), (true, 1)]);
    }

    #[test]
    fn any_error_in_any_file_ends_with_2() {
        let dir = tempfile::tempdir().expect("a directory");
        let good = written(&dir, "good", "exe:/usr/bin/a\n");
        let bad = written(&dir, "bad", "pexe:(\n");
        let conf = written(&dir, "conf", "PT_LIMIT = \"60\"\n");
        let bad_conf = written(&dir, "bad_conf", "PT_LIMIT = \"x\"\n");
        let gone = dir.path().join("gone");
        for (pignore, conf, errors) in [
            (&bad, Some(&conf), 1),
            (&good, Some(&bad_conf), 1),
            (&gone, Some(&conf), 1),
            (&good, Some(&gone), 1),
            (&gone, Some(&bad_conf), 2),
            (&gone, Some(&gone), 2),
            (&bad, Some(&gone), 2),
        ] {
            let import = read(&args(pignore, conf.map(PathBuf::as_path)), UnixMillis(0));
            let failure = say(&import, false).expect_err("an error");
            assert_eq!(failure.exit_code(), 2, "{failure}");
            let said = &import.local.diagnostics;
            assert_eq!(said.len(), errors, "{said:?}");
        }
    }
}
