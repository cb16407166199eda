//! Access control and TLS.

use std::io::Write as _;

use config::ConsulConfig;
use consul::testing::{Options, TestConsul};
use consul::{Consistency, Consul, Error, TxnOp, Written};
use election::Secret;

use crate::helpers::group;

const MASTER: &str = "6e1b8b0c-52a3-4b7a-9c3e-1f0d7a5e2b11";

async fn guarded() -> TestConsul {
    TestConsul::start_with(Options { master_token: Some(MASTER.to_owned()), ..Options::default() }).await.unwrap()
}

fn set() -> Vec<TxnOp> {
    vec![TxnOp::Set { key: "understudy/g/record".to_owned(), value: b"v".to_vec() }]
}

fn denied<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(error @ Error::Denied { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn without_a_token_every_verb_says_which_rule_is_missing() {
    let server = guarded().await;
    let client = Consul::connect(&ConsulConfig { token: None, ..server.config() }).unwrap();
    let text = denied(client.transact(set()).await);
    assert!(text.contains(r#"key_prefix "understudy/g/record" { policy = "write" }"#), "{text}");
    for text in [
        denied(client.read_group(&group()).await),
        denied(client.list_groups().await),
        denied(client.history(&group()).await),
        denied(client.result(&group(), "x").await),
    ] {
        assert!(text.contains(r#"key_prefix "understudy/"#) && text.contains(r#"policy = "read""#), "{text}");
    }
    let text = denied(client.create_session("db1").await);
    assert!(text.contains(r#"session_prefix "" { policy = "write" }"#), "{text}");
    let text = denied(client.put_cas("understudy/g/command", b"{}".to_vec(), 0).await);
    assert!(text.contains(r#"key_prefix "understudy/g/command" { policy = "write" }"#), "{text}");
}

#[tokio::test]
async fn a_wrong_token_is_denied_and_never_shown() {
    let server = guarded().await;
    let wrong = "0d5a8f1e-1111-2222-3333-444455556666";
    let client = Consul::connect(&ConsulConfig { token: Some(Secret::new(wrong)), ..server.config() }).unwrap();
    for text in [
        denied(client.read_group(&group()).await),
        denied(client.transact(set()).await),
        denied(client.result(&group(), "x").await),
    ] {
        assert!(text.contains("ACL not found"), "{text}");
        assert!(!text.contains(wrong), "{text}");
    }
}

#[tokio::test]
async fn a_group_that_may_not_be_read_is_not_taken_for_a_new_one() {
    let server = guarded().await;
    let allowed = server.client().unwrap();
    assert!(allowed.transact(set()).await.unwrap().is_applied());
    let client = Consul::connect(&ConsulConfig { token: None, ..server.config() }).unwrap();
    let mut views = client.watch_group(&election::GroupName::from("g"));
    let began = std::time::Instant::now();
    // Several rounds of the watch's pauses.
    while began.elapsed().as_millis() < 1_000 {
        let next = tokio::time::timeout(std::time::Duration::from_millis(100), views.changed()).await;
        assert!(next.is_err(), "it was shown: {:?}", views.borrow());
    }
    assert!(!views.borrow().seen, "{:?}", views.borrow());
}

#[tokio::test]
async fn a_token_file_is_read_again_when_it_changes() {
    let server = guarded().await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, "0d5a8f1e-1111-2222-3333-444455556666").unwrap();
    file.flush().unwrap();
    let path = Some(file.path().to_owned());
    let client = Consul::connect(&ConsulConfig { token: None, token_file: path, ..server.config() }).unwrap();
    denied(client.transact(set()).await);
    // The same length on purpose; and a line end, as editors leave it.
    std::fs::write(file.path(), format!("{MASTER}\n")).unwrap();
    assert!(client.transact(set()).await.unwrap().is_applied());
    std::fs::write(file.path(), "").unwrap();
    assert!(client.transact(set()).await.unwrap().is_applied(), "an empty file must not take the last token away");
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_with_their_key() {
    let missing = Some(std::path::PathBuf::from("/nowhere/token"));
    let error = |config: ConsulConfig| Consul::connect(&config).err().unwrap().to_string();
    let text = error(ConsulConfig { token_file: missing.clone(), ..ConsulConfig::default() });
    assert!(text.contains("/nowhere/token") && text.contains("token_file"), "{text}");
    let text = error(ConsulConfig { ca_file: missing, ..ConsulConfig::default() });
    assert!(text.contains("/nowhere/token") && text.contains("ca_file"), "{text}");
    let no_pem = tempfile::NamedTempFile::new().unwrap();
    let text = error(ConsulConfig { ca_file: Some(no_pem.path().to_owned()), ..ConsulConfig::default() });
    assert!(text.contains("no certificate"), "{text}");
}

#[tokio::test]
async fn both_http_clients_speak_tls_with_certificates_on_both_sides() {
    let server = TestConsul::start_with(Options { tls: true, ..Options::default() }).await.unwrap();
    let settings = server.tls_config().unwrap();
    let client = Consul::connect(&settings).unwrap();
    assert!(client.transact(set()).await.unwrap().is_applied());
    assert!(client.put_cas("k", b"v".to_vec(), 0).await.unwrap().is_applied());
    assert!(client.get("k", Consistency::Consistent).await.unwrap().is_some());

    // Without the authority's certificate nothing is sent at all, so nothing can be unknown.
    let stranger = Consul::connect(&ConsulConfig { ca_file: None, ..settings.clone() }).unwrap();
    let error = stranger.transact(set()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    let nameless = Consul::connect(&ConsulConfig { cert_file: None, key_file: None, ..settings }).unwrap();
    let refused = nameless.transact(set()).await;
    assert!(matches!(refused, Err(Error::Unreachable { .. }) | Ok(Written::Unknown { .. })), "{refused:?}");
}
