//! A collector that answers from a table, hostile text included, and remembers
//! what was published.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use procwarden_proto::v1;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use v1::admin_service_server::{AdminService, AdminServiceServer};

/// Findings in the table; a page never holds more than `PAGE`.
const FINDINGS: usize = 5;
const PAGE: usize = 2;

/// 2026-11-23T09:00:00Z
const NINE: i64 = 1_795_424_400_000;

pub(crate) struct FakeCollector {
    socket: PathBuf,
    published: Arc<Mutex<Vec<v1::PublishPolicyRequest>>>,
    _runtime: tokio::runtime::Runtime,
    _dir: TempDir,
}

impl FakeCollector {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("admin.sock");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = {
            let _entered = runtime.enter();
            UnixListener::bind(&socket).expect("a socket")
        };
        let answers = Answers::default();
        let published = Arc::clone(&answers.published);
        let server = Server::builder().add_service(AdminServiceServer::new(answers));
        runtime.spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        Self {
            socket,
            published,
            _runtime: runtime,
            _dir: dir,
        }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn published(&self) -> Vec<v1::PublishPolicyRequest> {
        self.published.lock().expect("no panic").clone()
    }
}

#[derive(Default)]
struct Answers {
    published: Arc<Mutex<Vec<v1::PublishPolicyRequest>>>,
}

type Answer<T> = Result<T, Status>;

macro_rules! answers {
    ($($method:ident $request:ident $response:ident $answer:expr;)*) => {
        #[tonic::async_trait]
        impl AdminService for Answers {
            type WatchFindingsStream =
                tokio_stream::Iter<std::vec::IntoIter<Answer<v1::WatchFindingsResponse>>>;

            async fn watch_findings(
                &self,
                _: Request<v1::WatchFindingsRequest>,
            ) -> Answer<Response<Self::WatchFindingsStream>> {
                let one = v1::WatchFindingsResponse { finding: Some(finding(0)) };
                Ok(Response::new(tokio_stream::iter(vec![Ok(one)])))
            }

            $(async fn $method(
                &self,
                request: Request<v1::$request>,
            ) -> Answer<Response<v1::$response>> {
                let answer: fn(&Self, v1::$request) -> Answer<v1::$response> = $answer;
                answer(self, request.into_inner()).map(Response::new)
            })*
        }
    };
}

/// A remark about what hosts get together, with what must not reach a terminal.
fn together() -> v1::Diagnostic {
    v1::Diagnostic {
        file: "fleet".into(),
        message: "web1\u{1b}: they do not fit together".into(),
        ..Default::default()
    }
}

answers! {
    status StatusRequest StatusResponse |_, _| Ok(v1::StatusResponse {
        version: "9.9.9".into(),
        ..Default::default()
    });
    create_token CreateTokenRequest CreateTokenResponse |_, request| {
        if request.groups == ["bad"] {
            return Err(Status::failed_precondition("agents refuse that: too many rules"));
        }
        Ok(v1::CreateTokenResponse {
            token: "pwt1.SECRET".into(),
            info: Some(v1::TokenInfo {
                groups: request.groups,
                uses: request.uses,
                expires_at_ms: NINE,
                ..Default::default()
            }),
            diagnostics: vec![together()],
        })
    };
    list_tokens ListTokensRequest ListTokensResponse |_, _| Ok(Default::default());
    revoke_token RevokeTokenRequest RevokeTokenResponse |_, _| Ok(Default::default());
    list_hosts ListHostsRequest ListHostsResponse |_, _| {
        Ok(v1::ListHostsResponse { hosts: vec![host(Vec::new())] })
    };
    show_host ShowHostRequest ShowHostResponse |_, _| {
        Ok(v1::ShowHostResponse { host: Some(host(Vec::new())), ..Default::default() })
    };
    set_host_groups SetHostGroupsRequest SetHostGroupsResponse |_, request| {
        Ok(v1::SetHostGroupsResponse {
            host: Some(host(request.groups)),
            diagnostics: vec![together()],
        })
    };
    revoke_host RevokeHostRequest RevokeHostResponse |_, _| Err(Status::permission_denied("not you"));
    scan_host ScanHostRequest ScanHostResponse |_, _| Err(Status::unimplemented(""));
    list_findings ListFindingsRequest ListFindingsResponse |_, request| Ok(page(&request));
    show_finding ShowFindingRequest ShowFindingResponse |_, request| match request.id.as_str() {
        "abcdef" => Ok(v1::ShowFindingResponse { finding: Some(finding(0)) }),
        id => Err(Status::not_found(format!("no finding begins with {id}"))),
    };
    publish_policy PublishPolicyRequest PublishPolicyResponse |answers, request| {
        publish(answers, request)
    };
    preview_policy PreviewPolicyRequest PreviewPolicyResponse |_, _| Ok(preview());
    list_policies ListPoliciesRequest ListPoliciesResponse |_, _| {
        Ok(v1::ListPoliciesResponse { policies: vec![policy("web", &[])] })
    };
    show_policy ShowPolicyRequest ShowPolicyResponse |_, request| Ok(v1::ShowPolicyResponse {
        policy: Some(policy(&request.name, &[])),
        document: Some(v1::PolicyDocument {
            name: request.name,
            revision: 3,
            files: vec![v1::PolicyFile {
                path: "a".into(),
                content: b"user:bob\r\n# \x1b[2J\xff\n".as_slice().into(),
            }],
            ..Default::default()
        }),
    });
    log_policy LogPolicyRequest LogPolicyResponse |_, _| Ok(Default::default());
    rollback_policy RollbackPolicyRequest RollbackPolicyResponse |_, request| {
        Ok(v1::RollbackPolicyResponse {
            policy: Some(policy(&request.name, &[])),
            published: request.revision == 1,
            diagnostics: vec![],
        })
    };
    assign_policy AssignPolicyRequest AssignPolicyResponse |_, request| {
        let groups: Vec<_> = request.groups.iter().map(String::as_str).collect();
        Ok(v1::AssignPolicyResponse {
            policy: Some(policy(&request.name, &groups)),
            diagnostics: vec![],
        })
    };
    policy_status PolicyStatusRequest PolicyStatusResponse |_, request| {
        let state = match request.name.as_str() {
            "done" => v1::PolicyHostState::Applied,
            _ => v1::PolicyHostState::Pending,
        };
        Ok(v1::PolicyStatusResponse {
            policy: Some(policy(&request.name, &["all"])),
            hosts: vec![v1::PolicyHost { state: state.into(), ..Default::default() }],
        })
    };
    start_rollout StartRolloutRequest StartRolloutResponse |_, request| {
        Ok(v1::StartRolloutResponse {
            rollout: Some(rollout(&request.policy)),
            diagnostics: vec![together()],
        })
    };
    show_rollout ShowRolloutRequest ShowRolloutResponse |_, request| {
        Ok(v1::ShowRolloutResponse { rollout: Some(rollout(&request.policy)) })
    };
    move_rollout MoveRolloutRequest MoveRolloutResponse |_, _| {
        Err(Status::failed_precondition("it is finished"))
    };
    start_learning StartLearningRequest StartLearningResponse |_, _| {
        Err(Status::failed_precondition("it is learned from"))
    };
    end_learning EndLearningRequest EndLearningResponse |_, request| {
        Ok(v1::EndLearningResponse { learning: Some(learning(request.group)) })
    };
    list_learning ListLearningRequest ListLearningResponse |_, _| {
        Ok(v1::ListLearningResponse { learning: vec![learning("web".into())] })
    };
    propose_policy ProposePolicyRequest ProposePolicyResponse |_, request| {
        Ok(v1::ProposePolicyResponse {
            text: "# a\u{1b}[2J\nexe:/usr/sbin/x\n".into(),
            rules: 1,
            left_out: 2,
            learning: Some(learning(request.group)),
        })
    };
    ignore_finding IgnoreFindingRequest IgnoreFindingResponse |_, request| match request.publish {
        true if request.finding == "feed01" => Ok(v1::IgnoreFindingResponse {
            policy: Some(policy(&request.policy, &[])),
            published: true,
            diagnostics: vec![together()],
            ..Default::default()
        }),
        true => Err(Status::failed_precondition("`exe:/tmp/x`: anybody writes there")),
        false => Ok(v1::IgnoreFindingResponse {
            facts: "#@ reason=\"a\u{1b}[2J\"".into(),
            rule: "exe:/tmp/\u{9b}x".into(),
            objections: vec!["anybody writes there".into()],
            can_be_forced: true,
            preview: Some(preview()),
            policy: Some(policy(&request.policy, &[])),
            ..Default::default()
        }),
    };
    policy_hits PolicyHitsRequest PolicyHitsResponse |_, _| Ok(v1::PolicyHitsResponse {
        hosts: 3,
        hosts_known: 2,
        ..Default::default()
    });
    list_audit ListAuditRequest ListAuditResponse |_, request| Ok(audit(&request));
    test_alert TestAlertRequest TestAlertResponse |_, _| {
        Ok(v1::TestAlertResponse { answer: "250 queued".into() })
    };
    list_alerts ListAlertsRequest ListAlertsResponse |_, _| Ok(Default::default());
}

/// Two pages of one decision each.
fn audit(request: &v1::ListAuditRequest) -> v1::ListAuditResponse {
    let first = request.cursor.is_empty();
    let what = if first { "published" } else { "enrolled" };
    let entry = v1::AuditEntry {
        at_ms: NINE,
        actor: "uid:0(root)".into(),
        what: what.into(),
        object: "policy web r3\u{1b}[2J".into(),
        details: String::new(),
    };
    let more: &[u8] = if first { b"more" } else { b"" };
    v1::ListAuditResponse {
        entries: vec![entry],
        next_cursor: more.into(),
    }
}

fn host(groups: Vec<String>) -> v1::HostInfo {
    v1::HostInfo {
        id: vec![1; 16].into(),
        name: "web\u{1b}[2J".into(),
        groups,
        state: v1::HostState::Connected.into(),
        wanted_hash: vec![2; 32].into(),
        policy: Some(v1::PolicyState {
            applied: vec![v1::AppliedPolicy {
                name: "web".into(),
                revision: 3,
            }],
            ..Default::default()
        }),
        health: Some(v1::AgentHealth {
            notes: vec!["a\u{9b}2J".into()],
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn page(request: &v1::ListFindingsRequest) -> v1::ListFindingsResponse {
    let from = request.cursor.first().copied().map_or(0, usize::from);
    let limit = usize::try_from(request.limit).expect("small").min(PAGE);
    let upto = (from + limit).min(FINDINGS);
    let more = u8::try_from(upto).ok().filter(|_| upto < FINDINGS);
    v1::ListFindingsResponse {
        findings: (from..upto).map(finding).collect(),
        next_cursor: more.map_or_else(Vec::new, |upto| vec![upto]).into(),
        cut: false,
    }
}

fn finding(index: usize) -> v1::StoredFinding {
    let process = v1::ProcessSubject {
        pid: 100,
        start_time: 7,
    };
    v1::StoredFinding {
        id: vec![u8::try_from(index).expect("small"); 16].into(),
        host_id: vec![1; 16].into(),
        host_name: "web\u{1b}[2J".into(),
        state: v1::FindingState::Open.into(),
        first_seen_ms: NINE,
        finding: Some(v1::Finding {
            subject: Some(v1::Subject {
                boot_id: vec![3; 16].into(),
                kind: Some(v1::subject::Kind::Process(process)),
            }),
            indicators: vec![v1::Indicator {
                id: "exe-deleted".into(),
                severity: v1::Severity::High.into(),
                evidence: "its file is gone".into(),
            }],
            user: b"bob\x07".as_slice().into(),
            process: Some(v1::ProcessFacts {
                comm: b"x\ny".as_slice().into(),
                exe: Some(b"/tmp/\x9bx (deleted)".as_slice().into()),
                maps: vec![b"7f00 \x1b[2J".as_slice().into()],
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn preview() -> v1::PreviewPolicyResponse {
    let sample = v1::PreviewSample {
        finding_id: vec![1; 16].into(),
        host_name: "web\u{1b}[2J".into(),
        exe: "/tmp/\u{9b}x".into(),
        severity: v1::Severity::High.into(),
        ..Default::default()
    };
    v1::PreviewPolicyResponse {
        rules: vec![v1::RulePreview {
            rule: "exe:/tmp/\u{9b}x".into(),
            findings: 1,
            severity: v1::Severity::High.into(),
            samples: vec![sample],
            ..Default::default()
        }],
        summary: Some(v1::PreviewSummary {
            hidden: 1,
            ..Default::default()
        }),
        diagnostics: Vec::new(),
    }
}

fn learning(group: String) -> v1::LearningInfo {
    v1::LearningInfo {
        group,
        since_ms: NINE,
        until_ms: NINE + 1000,
        running: true,
        ..Default::default()
    }
}

/// It stopped by itself when the policy is called so.
fn rollout(policy: &str) -> v1::RolloutInfo {
    let state = match policy {
        "stopped" => v1::RolloutState::Reverted,
        _ => v1::RolloutState::Running,
    };
    v1::RolloutInfo {
        policy: policy.into(),
        revision: 3,
        state: state.into(),
        step: 1,
        reason: "web\u{1b}[2J refuses".into(),
        ..Default::default()
    }
}

fn policy(name: &str, groups: &[&str]) -> v1::PolicyInfo {
    v1::PolicyInfo {
        name: name.into(),
        revision: 3,
        comment: "a\u{1b}[2J".into(),
        groups: groups.iter().map(|&group| group.into()).collect(),
        ..Default::default()
    }
}

fn publish(
    answers: &Answers,
    request: v1::PublishPolicyRequest,
) -> Answer<v1::PublishPolicyResponse> {
    let groups: Vec<_> = request.groups.iter().map(String::as_str).collect();
    let mut response = v1::PublishPolicyResponse {
        policy: Some(policy(&request.name, &groups)),
        published: true,
        diagnostics: Vec::new(),
    };
    match request.name.as_str() {
        "refusal" => return Err(Status::failed_precondition("the fleet says no")),
        "remarks" => {
            response.published = false;
            response.diagnostics.push(v1::Diagnostic {
                error: true,
                file: "a.pignore".into(),
                line: 1,
                message: "too much".into(),
                ..Default::default()
            });
        }
        _ => answers.published.lock().expect("no panic").push(request),
    }
    Ok(response)
}
