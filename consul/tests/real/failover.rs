//! Several addresses, of which some fail; and writes whose fate is not known.

use consul::{Consistency, Error, TxnOp, Written};

use crate::helpers::{Trouble, Troubled, client_of, consul, dead};

fn set(key: &str) -> Vec<TxnOp> {
    vec![TxnOp::Set { key: key.to_owned(), value: b"v".to_vec() }]
}

#[tokio::test]
async fn a_read_goes_on_to_the_address_that_answers_and_stays_there() {
    let (server, _) = consul().await;
    let failing = Troubled::start(Trouble::Fail).await;
    let client = client_of(&[&dead().await, &failing.url, &server.http]);
    assert_eq!(client.get("none", Consistency::Consistent).await.unwrap(), None);
    assert_eq!(failing.requests(), 1);
    for _ in 0..3 {
        client.get("none", Consistency::Default).await.unwrap();
    }
    assert_eq!(failing.requests(), 1, "it went back to an address that failed, without need");
}

#[tokio::test]
async fn a_read_does_not_wait_for_ever_for_a_silent_consul() {
    let (server, _) = consul().await;
    let silent = Troubled::start(Trouble::Silence).await;
    let client = client_of(&[&silent.url, &server.http]);
    assert_eq!(client.get("none", Consistency::Default).await.unwrap(), None);
    assert_eq!(silent.requests(), 1);
}

#[tokio::test]
async fn nobody_there_names_every_address_and_what_happened() {
    let (first, failing) = (dead().await, Troubled::start(Trouble::Fail).await);
    let client = client_of(&[&first, &failing.url]);
    let error = client.get("none", Consistency::Default).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(text.contains(&first) && text.contains("refused"), "{text}");
    assert!(text.contains(&failing.url) && text.contains("500: No cluster leader"), "{text}");
}

#[tokio::test]
async fn a_write_that_was_not_sent_goes_to_the_next_address() {
    let (server, _) = consul().await;
    let client = client_of(&[&dead().await, &server.http]);
    assert!(client.transact(set("k")).await.unwrap().is_applied());
    let client = client_of(&[&dead().await, &server.http]);
    assert!(client.put_cas("l", b"v".to_vec(), 0).await.unwrap().is_applied());
}

#[tokio::test]
async fn a_write_that_was_sent_and_not_answered_is_unknown_and_never_sent_twice() {
    for trouble in [Trouble::Silence, Trouble::Close, Trouble::Fail] {
        let (first, second) = (Troubled::start(trouble).await, Troubled::start(Trouble::Fail).await);
        let client = client_of(&[&first.url, &second.url]);
        let written = client.transact(set("k")).await.unwrap();
        assert!(matches!(&written, Written::Unknown { why } if why.contains(&first.url)), "{written:?}");
        assert_eq!((first.requests(), second.requests()), (1, 0));

        let client = client_of(&[&first.url, &second.url]);
        let written = client.put_cas("k", b"v".to_vec(), 0).await.unwrap();
        assert!(matches!(&written, Written::Unknown { why } if why.contains(&first.url)), "{written:?}");
        assert_eq!((first.requests(), second.requests()), (2, 0));
    }
}

#[tokio::test]
async fn a_write_that_no_address_took_is_an_error_because_nothing_was_sent() {
    let client = client_of(&[&dead().await, &dead().await]);
    let error = client.transact(set("k")).await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable { tried, .. } if tried.len() == 2), "{error:?}");
}
