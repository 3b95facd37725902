//! The service as the wire knows it: takes requests apart, hands them to the
//! file of their noun, wraps the answers. Decides nothing.

use std::sync::Arc;

use procwarden_proto::v1::admin_service_server::AdminService;
use procwarden_proto::v1::*;
use tonic::{Request, Response, Status};

use super::findings::FindingStream;
use super::refusal::off_thread;
use super::{AdminContext, Caller};

/// The admin service; cheap to clone.
#[derive(Clone)]
pub(super) struct Admin(Arc<AdminContext>);

impl Admin {
    pub(super) fn new(context: AdminContext) -> Self {
        Self(Arc::new(context))
    }

    /// Answers off the threads that serve: the index may have to be waited
    /// for, and hashing long policies takes its time.
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&AdminContext) -> T + Send + 'static,
    ) -> Answer<T> {
        self.try_look(|context| Ok(look(context))).await
    }

    async fn try_look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&AdminContext) -> Result<T, Status> + Send + 'static,
    ) -> Answer<T> {
        let context = self.0.clone();
        answer(off_thread(move || look(&context)).await??)
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn answer<T>(answer: T) -> Answer<T> {
    Ok(Response::new(answer))
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        self.look(AdminContext::status).await
    }

    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Answer<CreateTokenResponse> {
        let caller = Caller::of(&request)?;
        answer(self.0.create_token(&caller, request.into_inner()).await?)
    }

    async fn list_tokens(&self, _: Request<ListTokensRequest>) -> Answer<ListTokensResponse> {
        answer(self.0.list_tokens())
    }

    async fn revoke_token(
        &self,
        request: Request<RevokeTokenRequest>,
    ) -> Answer<RevokeTokenResponse> {
        let caller = Caller::of(&request)?;
        answer(self.0.revoke_token(&caller, request.into_inner()).await?)
    }

    async fn list_hosts(&self, request: Request<ListHostsRequest>) -> Answer<ListHostsResponse> {
        self.look(move |context| context.list_hosts(request.get_ref()))
            .await
    }

    async fn show_host(&self, request: Request<ShowHostRequest>) -> Answer<ShowHostResponse> {
        self.try_look(move |context| context.show_host(request.get_ref()))
            .await
    }

    async fn set_host_groups(
        &self,
        request: Request<SetHostGroupsRequest>,
    ) -> Answer<SetHostGroupsResponse> {
        let caller = Caller::of(&request)?;
        answer(
            self.0
                .set_host_groups(&caller, request.into_inner())
                .await?,
        )
    }

    async fn revoke_host(&self, request: Request<RevokeHostRequest>) -> Answer<RevokeHostResponse> {
        let caller = Caller::of(&request)?;
        answer(self.0.revoke_host(&caller, request.into_inner()).await?)
    }

    async fn scan_host(&self, request: Request<ScanHostRequest>) -> Answer<ScanHostResponse> {
        answer(self.0.scan_host(request.get_ref())?)
    }

    async fn list_findings(
        &self,
        request: Request<ListFindingsRequest>,
    ) -> Answer<ListFindingsResponse> {
        answer(self.0.list_findings(request.into_inner()).await?)
    }

    async fn show_finding(
        &self,
        request: Request<ShowFindingRequest>,
    ) -> Answer<ShowFindingResponse> {
        answer(self.0.show_finding(request.into_inner()).await?)
    }

    type WatchFindingsStream = FindingStream;

    async fn watch_findings(
        &self,
        request: Request<WatchFindingsRequest>,
    ) -> Answer<FindingStream> {
        answer(self.0.watch_findings(request.into_inner())?)
    }

    async fn publish_policy(
        &self,
        request: Request<PublishPolicyRequest>,
    ) -> Answer<PublishPolicyResponse> {
        let caller = Caller::of(&request)?;
        answer(self.0.publish_policy(&caller, request.into_inner()).await?)
    }

    async fn preview_policy(
        &self,
        request: Request<PreviewPolicyRequest>,
    ) -> Answer<PreviewPolicyResponse> {
        self.try_look(move |context| context.preview_policy(request.into_inner()))
            .await
    }

    async fn list_policies(&self, _: Request<ListPoliciesRequest>) -> Answer<ListPoliciesResponse> {
        self.look(AdminContext::list_policies).await
    }

    async fn show_policy(&self, request: Request<ShowPolicyRequest>) -> Answer<ShowPolicyResponse> {
        self.try_look(move |context| context.show_policy(request.get_ref()))
            .await
    }

    async fn log_policy(&self, request: Request<LogPolicyRequest>) -> Answer<LogPolicyResponse> {
        self.try_look(move |context| context.log_policy(request.get_ref()))
            .await
    }

    async fn rollback_policy(
        &self,
        request: Request<RollbackPolicyRequest>,
    ) -> Answer<RollbackPolicyResponse> {
        let caller = Caller::of(&request)?;
        answer(
            self.0
                .rollback_policy(&caller, request.into_inner())
                .await?,
        )
    }

    async fn assign_policy(
        &self,
        request: Request<AssignPolicyRequest>,
    ) -> Answer<AssignPolicyResponse> {
        let caller = Caller::of(&request)?;
        answer(self.0.assign_policy(&caller, request.into_inner()).await?)
    }

    async fn policy_status(
        &self,
        request: Request<PolicyStatusRequest>,
    ) -> Answer<PolicyStatusResponse> {
        self.try_look(move |context| context.policy_status(request.get_ref()))
            .await
    }

    async fn ignore_finding(
        &self,
        request: Request<IgnoreFindingRequest>,
    ) -> Answer<IgnoreFindingResponse> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let (context, asked, by) = (self.0.clone(), request.clone(), caller.clone());
        let plan = off_thread(move || context.plan_ignore(&by, &asked)).await??;
        answer(self.0.ignore_finding(&caller, &request, plan).await?)
    }

    async fn policy_hits(&self, request: Request<PolicyHitsRequest>) -> Answer<PolicyHitsResponse> {
        self.try_look(move |context| context.policy_hits(request.get_ref()))
            .await
    }

    async fn start_rollout(
        &self,
        request: Request<StartRolloutRequest>,
    ) -> Answer<StartRolloutResponse> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let diagnostics = self.0.start_rollout(&caller, &request).await?;
        let look = move |context: &AdminContext| {
            let rollout = Some(context.show_rollout(&request.policy)?);
            Ok(StartRolloutResponse {
                rollout,
                diagnostics,
            })
        };
        self.try_look(look).await
    }

    async fn show_rollout(
        &self,
        request: Request<ShowRolloutRequest>,
    ) -> Answer<ShowRolloutResponse> {
        let look = move |context: &AdminContext| {
            let rollout = Some(context.show_rollout(&request.get_ref().policy)?);
            Ok(ShowRolloutResponse { rollout })
        };
        self.try_look(look).await
    }

    async fn move_rollout(
        &self,
        request: Request<MoveRolloutRequest>,
    ) -> Answer<MoveRolloutResponse> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        self.0.move_rollout(&caller, &request).await?;
        let look = move |context: &AdminContext| {
            let rollout = Some(context.show_rollout(&request.policy)?);
            Ok(MoveRolloutResponse { rollout })
        };
        self.try_look(look).await
    }

    async fn start_learning(
        &self,
        request: Request<StartLearningRequest>,
    ) -> Answer<StartLearningResponse> {
        let caller = Caller::of(&request)?;
        answer(self.0.start_learning(&caller, request.into_inner()).await?)
    }

    async fn end_learning(
        &self,
        request: Request<EndLearningRequest>,
    ) -> Answer<EndLearningResponse> {
        let caller = Caller::of(&request)?;
        answer(self.0.end_learning(&caller, request.into_inner()).await?)
    }

    async fn list_learning(&self, _: Request<ListLearningRequest>) -> Answer<ListLearningResponse> {
        answer(self.0.list_learning())
    }

    async fn propose_policy(
        &self,
        request: Request<ProposePolicyRequest>,
    ) -> Answer<ProposePolicyResponse> {
        self.try_look(move |context| context.propose_policy(request.get_ref()))
            .await
    }

    async fn list_audit(&self, request: Request<ListAuditRequest>) -> Answer<ListAuditResponse> {
        self.try_look(move |context| context.list_audit(request.get_ref()))
            .await
    }

    async fn test_alert(&self, request: Request<TestAlertRequest>) -> Answer<TestAlertResponse> {
        answer(self.0.test_alert(request.into_inner()).await?)
    }

    async fn list_alerts(&self, _: Request<ListAlertsRequest>) -> Answer<ListAlertsResponse> {
        answer(self.0.list_alerts())
    }
}
