//! The calls of an operator's commands: one request each, by `rs-consul`.
//!
//! rs-consul has no timeouts of its own, writes keys into paths as they are, and tells a missing key by an error: all
//! three are met here. Its read and its delete of one key send `?recurse=false`, which Consul takes for `recurse`: they
//! read, and delete, every key that begins so. Hence only folders are read by it, and nothing is deleted. Sessions,
//! transactions, blocking queries and the agent's endpoints it does not have; they stand in the other modules.

use election::{Command, GroupName, HistoryEntry, Outcome, Policy};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rs_consul::{ConsistencyMode, ConsulError, CreateOrUpdateKeyRequest, ReadKeyRequest};
use serde::Deserialize;

use crate::Consul;
use crate::error::{Error, Right, Written};
use crate::http::{CONNECT_TIMEOUT, Call, REQUEST_TIMEOUT, escape, is_denial};
use crate::kv::{Consistency, Entry};
use crate::layout::{Forgotten, decode, encode};
use crate::txn::TxnOp;

/// The connections of rs-consul, with our TLS settings and our limit for connecting.
pub(crate) struct Client {
    https: rs_consul::HttpsClient,
}

impl Client {
    pub(crate) fn new(tls: rustls::ClientConfig) -> Self {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        // An operator's command makes a handful of requests: no connection is worth keeping.
        let https = HyperClient::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Self { https }
    }
}

#[derive(Deserialize)]
struct CatalogService {
    #[serde(rename = "ServiceID")]
    service_id: String,
}

/// One request as rs-consul takes it.
enum Request<'a> {
    /// Everything in a folder.
    Read {
        folder: &'a str,
    },
    Put {
        key: &'a str,
        value: Vec<u8>,
        index: u64,
    },
}

impl Request<'_> {
    fn key(&self) -> &str {
        match self {
            Request::Read { folder: key } | Request::Put { key, .. } => key,
        }
    }

    fn name(&self) -> String {
        let verb = match self {
            Request::Read { .. } => "GET",
            Request::Put { .. } => "PUT",
        };
        format!("{verb} /v1/kv/{}", self.key())
    }

    fn right(&self) -> Right {
        match self {
            Request::Read { folder } => Right::ReadKeys((*folder).to_owned()),
            Request::Put { key, .. } => Right::WriteKeys((*key).to_owned()),
        }
    }
}

/// What rs-consul answers.
enum Answer {
    Entries(Vec<Entry>),
    Done(bool),
}

/// How a request failed, as far as it matters for what to do next.
enum Failure {
    /// It did not reach this address.
    Unsent(String),
    /// It may have reached it.
    Lost(String),
    /// It was answered.
    Status { code: u16, detail: String },
}

impl Consul {
    /// Leaves a request for the acting agent. Refused while another one waits.
    pub async fn put_command(&self, group: &GroupName, command: &Command) -> Result<Written, Error> {
        self.put_cas(&self.layout().command(group), encode(command), 0).await
    }

    /// Writes the policy if it was last changed at `index`; 0: if there is none.
    pub async fn put_policy(&self, group: &GroupName, policy: &Policy, index: u64) -> Result<Written, Error> {
        self.put_cas(&self.layout().config(group), encode(policy), index).await
    }

    /// What became of a request, once an agent has written it.
    pub async fn result(&self, group: &GroupName, id: &str) -> Result<Option<Outcome>, Error> {
        let found = self.get(&self.layout().result(group, id), Consistency::Consistent).await?;
        found.as_ref().map(decode).transpose()
    }

    /// Removes a result that its operator has seen, so that results do not pile up.
    pub async fn forget_result(&self, group: &GroupName, id: &str) -> Result<Written, Error> {
        self.transact(vec![TxnOp::Delete { key: self.layout().result(group, id) }]).await
    }

    /// Leaves word that a node will not return, over whatever word there was, and strikes it off the group's nodes.
    pub async fn forget_node(&self, group: &GroupName, forgotten: &Forgotten) -> Result<Written, Error> {
        let key = self.layout().forgotten(group, &forgotten.node);
        let node = self.layout().node(group, &forgotten.node);
        self.transact(vec![TxnOp::Set { key, value: encode(forgotten) }, TxnOp::Delete { key: node }]).await
    }

    /// The ids of the instances that a group's service has, at any Consul agent of the datacenter.
    pub async fn service_ids(&self, group: &GroupName) -> Result<Vec<String>, Error> {
        let right = Right::ReadService(group.0.clone());
        let call = Call::get(format!("/v1/catalog/service/{}", escape(&group.0)), right).query("consistent", "");
        let found: Vec<CatalogService> = self.http().read(&call).await?.success(&call)?.json(&call)?;
        Ok(found.into_iter().map(|service| service.service_id).collect())
    }

    /// The stories of the last epochs, oldest first.
    pub async fn history(&self, group: &GroupName) -> Result<Vec<HistoryEntry>, Error> {
        let folder = self.layout().histories(group);
        let found = self.read_by_operator(Request::Read { folder: &folder }).await?;
        if found.is_empty() {
            self.may_read(&folder).await?;
        }
        let mut stories: Vec<HistoryEntry> = found.iter().map(decode).collect::<Result<_, _>>()?;
        stories.sort_by_key(|story| story.epoch);
        Ok(stories)
    }

    /// Writes a key if it was last changed at `index`; 0: if it does not exist.
    pub async fn put_cas(&self, key: &str, value: Vec<u8>, index: u64) -> Result<Written, Error> {
        self.write_by_operator(Request::Put { key, value, index }).await
    }

    async fn read_by_operator(&self, request: Request<'_>) -> Result<Vec<Entry>, Error> {
        let mut tried = Vec::new();
        for at in self.http().order() {
            let why = match self.ask(at, &request).await? {
                Ok(Answer::Entries(entries)) => {
                    self.http().stick_to(at);
                    return Ok(entries);
                }
                Ok(Answer::Done(_)) => return Ok(Vec::new()),
                Err(Failure::Status { code: 404, .. }) => {
                    self.http().stick_to(at);
                    return Ok(Vec::new());
                }
                Err(Failure::Status { code, detail }) if code >= 500 && !is_denial(&detail) => {
                    format!("status {code}: {detail}")
                }
                Err(Failure::Status { code, detail }) => return Err(refusal(&request, code, detail)),
                Err(Failure::Unsent(why) | Failure::Lost(why)) => why,
            };
            tried.push(self.http().failed(at, why));
        }
        Err(Error::Unreachable { request: request.name(), tried })
    }

    async fn write_by_operator(&self, request: Request<'_>) -> Result<Written, Error> {
        let mut tried = Vec::new();
        for at in self.http().order() {
            match self.ask(at, &request).await? {
                Ok(Answer::Done(true) | Answer::Entries(_)) => {
                    self.http().stick_to(at);
                    return Ok(Written::Applied { index: 0 });
                }
                Ok(Answer::Done(false)) => {
                    let why = format!("{} is there already, or has been changed meanwhile", request.key());
                    return Ok(Written::Refused { why });
                }
                Err(Failure::Unsent(why)) => tried.push(self.http().failed(at, why)),
                Err(Failure::Status { code, detail }) if code >= 500 && !is_denial(&detail) => {
                    return Ok(self.http().failed(at, format!("status {code}: {detail}")).unknown());
                }
                Err(Failure::Status { code, detail }) => return Err(refusal(&request, code, detail)),
                Err(Failure::Lost(why)) => return Ok(self.http().failed(at, why).unknown()),
            }
        }
        Err(Error::Unreachable { request: request.name(), tried })
    }

    /// One request to one address. The outer error means that it cannot be asked at all.
    async fn ask(&self, at: usize, request: &Request<'_>) -> Result<Result<Answer, Failure>, Error> {
        if !is_plain(request.key()) {
            let why = format!("the key `{}` holds characters other than A-Z, a-z, 0-9, /, _, . and -", request.key());
            return Err(Error::Setup { why });
        }
        let config = rs_consul::Config {
            address: self.http().address(at).to_owned(),
            token: self.http().token().map(|token| token.reveal().to_owned()),
            ..rs_consul::Config::default()
        };
        let client = rs_consul::Consul::new_with_client(config, self.inner.operator.https.clone());
        let datacenter = self.http().datacenter().unwrap_or_default();
        match tokio::time::timeout(REQUEST_TIMEOUT, send(&client, request, datacenter)).await {
            Ok(answer) => Ok(answer.map_err(failure)),
            Err(_) => Ok(Err(Failure::Lost("no answer in time".to_owned()))),
        }
    }
}

async fn send(client: &rs_consul::Consul, request: &Request<'_>, datacenter: &str) -> Result<Answer, ConsulError> {
    match request {
        Request::Read { folder } => {
            let consistency = ConsistencyMode::Consistent;
            let read = ReadKeyRequest { key: folder, recurse: true, consistency, datacenter, ..Default::default() };
            let found = client.read_key(read).await?;
            Ok(Answer::Entries(found.response.into_iter().map(entry).collect()))
        }
        Request::Put { key, value, index } => {
            // Never without an index: with a datacenter alone rs-consul would write another key.
            let check_and_set = i64::try_from(*index).ok();
            let put = CreateOrUpdateKeyRequest { key, check_and_set, datacenter, ..Default::default() };
            let (done, _) = client.create_or_update_key(put, value.clone()).await?;
            Ok(Answer::Done(done))
        }
    }
}

fn entry(read: rs_consul::ReadKeyResponse) -> Entry {
    Entry {
        key: read.key,
        value: read.value.unwrap_or_default().into_bytes(),
        modify_index: u64::try_from(read.modify_index).unwrap_or_default(),
        session: read.session.filter(|s| !s.is_empty()),
    }
}

fn failure(error: ConsulError) -> Failure {
    match error {
        ConsulError::UnexpectedResponseCode(code, body) => {
            let detail = body.unwrap_or_default().lines().next().unwrap_or_default().to_owned();
            Failure::Status { code: code.as_u16(), detail }
        }
        ConsulError::ResponseError(e) if e.is_connect() => Failure::Unsent(e.to_string()),
        ConsulError::InvalidRequest(_) | ConsulError::RequestError(_) => Failure::Unsent(error.to_string()),
        other => Failure::Lost(other.to_string()),
    }
}

fn refusal(request: &Request<'_>, code: u16, detail: String) -> Error {
    if code == 403 || is_denial(&detail) {
        return Error::Denied { request: request.name(), right: request.right(), detail };
    }
    Error::Status { request: request.name(), code, detail }
}

/// Whether a key may stand in a path as it is.
fn is_plain(key: &str) -> bool {
    key.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_.-".contains(&b))
}
