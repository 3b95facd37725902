//! Limits that several parts share. Each bounds what a hostile process, file
//! or peer can make a program read, keep or send.

/// Bytes of a command line that are read, judged and sent. A longer one is
/// marked as truncated, and command-line rules do not match it.
pub const CMDLINE_BYTES_MAX: usize = 32 * 1024;

/// Bytes of any path (PATH_MAX is 4096; a deleted one gains a suffix).
pub const PATH_BYTES_MAX: usize = 4096 + 64;

/// Bytes of comm: TASK_COMM_LEN is 16; workqueue names may be longer.
pub const COMM_BYTES_MAX: usize = 64;

/// Sockets listed in a finding.
pub const SOCKETS_MAX: usize = 64;

/// Open files listed in a finding.
pub const FILES_MAX: usize = 64;

/// Lines of the memory map in a finding.
pub const MAPS_MAX: usize = 512;

/// Bytes of one line of the memory map: addresses and flags, then a path.
pub const MAP_LINE_BYTES_MAX: usize = PATH_BYTES_MAX + 128;

/// Parents listed in a finding.
pub const ANCESTRY_MAX: usize = 8;

/// Bytes of the command line of a parent in a finding.
pub const ANCESTOR_CMDLINE_BYTES_MAX: usize = 1024;

/// Bytes of the name of a container's runtime, and of a container.
pub const RUNTIME_BYTES_MAX: usize = 32;
/// See [`RUNTIME_BYTES_MAX`].
pub const CONTAINER_BYTES_MAX: usize = 128;

/// Variables of the environment in a finding.
pub const ENVIRONMENT_MAX: usize = 48;

/// Bytes of the name of a variable, and of its value, in a finding.
pub const ENVIRONMENT_NAME_BYTES_MAX: usize = 64;
/// See [`ENVIRONMENT_NAME_BYTES_MAX`].
pub const ENVIRONMENT_VALUE_BYTES_MAX: usize = 256;

/// Records of actions of one finding.
pub const ACTIONS_MAX: usize = 64;

/// Bytes of the name of an action, and of what came of it.
pub const ACTION_BYTES_MAX: usize = 64;
/// See [`ACTION_BYTES_MAX`].
pub const ACTION_RESULT_BYTES_MAX: usize = 512;

/// Processes listed in a finding about a host.
pub const BUSY_PROCESSES_MAX: usize = 32;

/// Bytes of the command line of such a process.
pub const BUSY_CMDLINE_BYTES_MAX: usize = 256;

/// Kinds and states of sockets that are counted in a finding about a host.
pub const SOCKET_COUNTS_MAX: usize = 128;

/// Figures of the memory in a finding about a host.
pub const MEMORY_FIGURES_MAX: usize = 32;

/// Indicators of one finding.
pub const INDICATORS_MAX: usize = 64;

/// Bytes of the evidence text of an indicator.
pub const EVIDENCE_BYTES_MAX: usize = 1024;

/// Bytes of an account's name.
pub const USER_BYTES_MAX: usize = 256;

/// Bytes of a host's name (RFC 1035 allows 253).
pub const HOST_NAME_BYTES_MAX: usize = 253;

/// Events of one batch.
pub const BATCH_EVENTS_MAX: usize = 512;

/// Bytes of one gRPC message. A batch stays below it.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of all files of one policy.
pub const POLICY_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Rules of all policies of one host.
pub const RULES_MAX: usize = 50_000;

/// Files of one policy: the first and what its Include lines name.
pub const POLICY_FILES_MAX: usize = 64;

/// Policies of one host.
pub const POLICIES_MAX: usize = 64;

/// Bytes of the name of a policy or group.
pub const NAME_BYTES_MAX: usize = 64;

/// Heap bytes that the compiled patterns of a host's policies may take, without
/// the tables they build while they match. An agent holds the old policies
/// while it compiles the new ones, in half of the 128 MiB that it is given.
pub const PATTERN_BYTES_MAX: usize = 8 * 1024 * 1024;
