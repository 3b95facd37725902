//! Which container a process lives in, told by the path of its control group.
//!
//! Pure: a path in, a container out. The forms are those that the runtimes
//! document: cgroupfs and systemd drivers of docker, podman and the CRI
//! runtimes (containerd, CRI-O), kubernetes pods, LXC and `systemd-nspawn`.
//! Promises: no path makes it panic; an id has the characters of one
//! (`Container::new`). Never a proof: whoever may make control groups may
//! name them like a container.

use procwarden_common::finding::Container;

/// Digits of the ids that docker, podman and the CRI runtimes give.
const ID_DIGITS: usize = 64;

/// Prefixes of `<prefix><id>.scope`, as the systemd driver names its units.
const SCOPES: &[(&str, &str)] = &[
    ("docker-", "docker"),
    ("libpod-", "podman"),
    ("cri-containerd-", "cri"),
    ("crio-", "cri"),
    ("containerd-", "cri"),
];

/// Directories whose child is named after the container, as cgroupfs makes them.
const PARENTS: &[(&str, &str)] = &[
    ("docker", "docker"),
    ("libpod_parent", "podman"),
    ("lxc", "lxc"),
    ("lxc.payload", "lxc"),
];

/// The innermost container that a path names.
pub(super) fn of_cgroup(path: &[u8]) -> Option<Container> {
    let names: Vec<&str> = path
        .split(|&b| b == b'/')
        .filter_map(|name| std::str::from_utf8(name).ok())
        .collect();
    (0..names.len())
        .rev()
        .find_map(|at| of_name(names.get(at)?, names.get(at.checked_sub(1)?).copied()))
}

fn of_name(name: &str, parent: Option<&str>) -> Option<Container> {
    of_unit(name)
        .or_else(|| of_lxc(name))
        .or_else(|| of_parent(name, parent.unwrap_or_default()))
}

/// `docker-<id>.scope`, `machine-<name>.scope`, `systemd-nspawn@<name>.service`.
fn of_unit(name: &str) -> Option<Container> {
    if let Some(unit) = name.strip_suffix(".scope") {
        let of_runtime = SCOPES.iter().find_map(|(prefix, runtime)| {
            let id = unit.strip_prefix(prefix).filter(|id| is_id(id))?;
            Container::new(runtime, id)
        });
        let of_machine =
            || Container::new("systemd-nspawn", &unescaped(unit.strip_prefix("machine-")?));
        return of_runtime.or_else(of_machine);
    }
    let machine = name
        .strip_prefix("systemd-nspawn@")?
        .strip_suffix(".service")?;
    Container::new("systemd-nspawn", &unescaped(machine))
}

/// `lxc.payload.<name>`, `libpod-<id>`, and what else stands without a unit.
fn of_lxc(name: &str) -> Option<Container> {
    if let Some(name) = name.strip_prefix("lxc.payload.") {
        return Container::new("lxc", name);
    }
    let id = name.strip_prefix("libpod-").filter(|id| is_id(id))?;
    Container::new("podman", id)
}

fn of_parent(name: &str, parent: &str) -> Option<Container> {
    let known = PARENTS.iter().find(|(dir, _)| *dir == parent);
    match known {
        Some((_, runtime)) if *runtime == "lxc" || is_id(name) => Container::new(runtime, name),
        Some(_) => None,
        // /kubepods/burstable/pod<uid>/<id>, and containerd's /<namespace>/<id>.
        None => is_id(name).then(|| Container::new("cri", name)).flatten(),
    }
}

fn is_id(text: &str) -> bool {
    text.len() == ID_DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// systemd writes `-` within a name as `\x2d` (systemd.unit(5)).
fn unescaped(name: &str) -> String {
    name.replace("\\x2d", "-")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn named(path: &str) -> Option<(String, String)> {
        let container = of_cgroup(path.replace("ID", ID).as_bytes())?;
        Some((container.runtime().to_owned(), container.id().to_owned()))
    }

    #[test]
    fn every_runtime_is_told_by_its_path() {
        for (path, runtime, id) in [
            ("/docker/ID", "docker", ID),
            ("/system.slice/docker-ID.scope", "docker", ID),
            ("/system.slice/docker-ID.scope/init.scope", "docker", ID),
            ("/machine.slice/libpod-ID.scope/container", "podman", ID),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope",
                "podman",
                ID,
            ),
            ("/libpod_parent/libpod-ID", "podman", ID),
            ("/kubepods/burstable/pod1f5-aa/ID", "cri", ID),
            (
                "/kubepods.slice/kubepods-pod1.slice/cri-containerd-ID.scope",
                "cri",
                ID,
            ),
            (
                "/kubepods.slice/kubepods-pod1.slice/crio-ID.scope",
                "cri",
                ID,
            ),
            ("/default/ID", "cri", ID),
            ("/lxc/web1", "lxc", "web1"),
            (
                "/lxc.payload.web1/system.slice/nginx.service",
                "lxc",
                "web1",
            ),
            ("/lxc.payload/web1", "lxc", "web1"),
            (
                "/machine.slice/systemd-nspawn@web1.service/payload",
                "systemd-nspawn",
                "web1",
            ),
            (
                "/machine.slice/machine-web\\x2d1.scope",
                "systemd-nspawn",
                "web-1",
            ),
        ] {
            let expected = Some((runtime.to_owned(), id.to_owned()));
            assert_eq!(named(path), expected, "{path}");
        }
    }

    #[test]
    fn services_and_users_are_in_no_container() {
        for path in [
            "",
            "/",
            "/init.scope",
            "/system.slice/docker.service",
            "/system.slice/nginx.service",
            "/user.slice/user-1000.slice/session-3.scope",
            "/docker/not-an-id",
            "/machine.slice/systemd-nspawn@a b.service",
            "/lxc.payload.",
        ] {
            assert_eq!(named(path), None, "{path}");
        }
    }

    #[test]
    fn the_innermost_container_counts() {
        let nested = named("/lxc.payload.host/system.slice/docker-ID.scope");
        assert_eq!(nested, Some(("docker".to_owned(), ID.to_owned())));
    }

    proptest! {
        #[test]
        fn no_path_is_too_strange(path in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(container) = of_cgroup(&path) {
                prop_assert!(Container::new(container.runtime(), container.id()).is_some());
            }
        }

        #[test]
        fn an_escape_in_a_name_never_gets_out(name in "[ -~\u{80}-\u{ff}]{0,140}") {
            let path = format!("/lxc.payload.{name}");
            if let Some(container) = of_cgroup(path.as_bytes()) {
                prop_assert!(container.id().bytes().all(|b| b.is_ascii_graphic()));
            }
        }
    }
}
