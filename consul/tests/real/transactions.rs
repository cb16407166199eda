//! Transactions as a takeover uses them, and the facts about Consul that the protocol is built on.

use consul::{Consistency, TxnOp, Written, answer_ops, proposal_ops};
use election::decision::TakeLeader;
use election::{Command, CommandOp, Outcome, Proposal};

use crate::helpers::{consul, group, record};

fn proposal(epoch: u64, seq: u64, master: &str, index: u64) -> Proposal {
    let record = record(epoch, seq, master);
    Proposal { record, index, take_leader: None, policy: None, history: None, result: None, consume: None }
}

fn applied(written: &Written) -> u64 {
    match written {
        Written::Applied { index } => *index,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_record_changes_only_at_the_index_it_was_read_at() {
    let (_server, client) = consul().await;
    let layout = client.layout();
    let first = client.transact(proposal_ops(layout, &proposal(1, 1, "db1", 0))).await.unwrap();
    let read = client.read_group(&group()).await.unwrap();
    assert_eq!(read.record, Some((record(1, 1, "db1"), applied(&first))), "the index is that of the record");

    let again = client.transact(proposal_ops(layout, &proposal(1, 2, "db2", 0))).await.unwrap();
    assert!(
        matches!(&again, Written::Refused { why } if why.contains("cas understudy/backend-redis/record")),
        "{again:?}"
    );
    let next = client.transact(proposal_ops(layout, &proposal(1, 2, "db1", applied(&first)))).await.unwrap();
    assert!(applied(&next) > applied(&first));
}

#[tokio::test]
async fn one_transaction_takes_the_leader_key_from_another_session() {
    let (_server, client) = consul().await;
    let layout = client.layout();
    let (old, new) = (client.create_session("db1").await.unwrap(), client.create_session("db2").await.unwrap());
    let mut first = proposal(1, 1, "db1", 0);
    first.take_leader = Some(TakeLeader { from: None, to: old.clone() });
    let index = applied(&client.transact(proposal_ops(layout, &first)).await.unwrap());
    assert_eq!(client.read_group(&group()).await.unwrap().leader, Some(old.clone()));

    let mut second = proposal(2, 2, "db2", index);
    second.take_leader = Some(TakeLeader { from: Some(old.clone()), to: new.clone() });
    let second_index = applied(&client.transact(proposal_ops(layout, &second)).await.unwrap());
    let view = client.read_group(&group()).await.unwrap();
    assert_eq!((view.leader, view.record.map(|r| r.1)), (Some(new), Some(second_index)));
}

#[tokio::test]
async fn unlocking_from_an_ended_session_changes_nothing_at_all() {
    let (_server, client) = consul().await;
    let layout = client.layout();
    let (old, new) = (client.create_session("db1").await.unwrap(), client.create_session("db2").await.unwrap());
    let mut first = proposal(1, 1, "db1", 0);
    first.take_leader = Some(TakeLeader { from: None, to: old.clone() });
    let index = applied(&client.transact(proposal_ops(layout, &first)).await.unwrap());
    client.destroy_session(&old).await.unwrap();

    let view = client.read_group(&group()).await.unwrap();
    assert_eq!(view.leader, None, "the key went with its session");
    assert_eq!(view.record.unwrap().1, index, "the record does not move when a session ends");

    let mut stale = proposal(2, 2, "db2", index);
    stale.take_leader = Some(TakeLeader { from: Some(old), to: new.clone() });
    let refused = client.transact(proposal_ops(layout, &stale)).await.unwrap();
    assert!(matches!(&refused, Written::Refused { why } if why.contains("unlock")), "{refused:?}");
    assert_eq!(client.read_group(&group()).await.unwrap().record.unwrap().1, index);

    let mut fresh = proposal(2, 2, "db2", index);
    fresh.take_leader = Some(TakeLeader { from: None, to: new });
    assert!(client.transact(proposal_ops(layout, &fresh)).await.unwrap().is_applied());
}

#[tokio::test]
async fn what_is_there_already_gets_no_new_index() {
    let (_server, client) = consul().await;
    let layout = client.layout();
    let first = applied(&client.transact(proposal_ops(layout, &proposal(1, 1, "db1", 0))).await.unwrap());
    let same = applied(&client.transact(proposal_ops(layout, &proposal(1, 1, "db1", first))).await.unwrap());
    assert_eq!(first, same, "if this ever changes, the nonce in the record is no longer needed");
}

#[tokio::test]
async fn conditions_of_every_kind_hold_or_refuse() {
    let (_server, client) = consul().await;
    let session = client.create_session("db1").await.unwrap();
    let key = || "a b/c?d".to_owned();
    let lock = TxnOp::Lock { key: key(), value: b"1".to_vec(), session: session.clone() };
    let index = applied(&client.transact(vec![TxnOp::CheckNotExists { key: key() }, lock]).await.unwrap());
    let entry = client.get(&key(), Consistency::Consistent).await.unwrap().unwrap();
    assert_eq!((entry.value, entry.session), (b"1".to_vec(), Some(session.clone())));
    assert_eq!(entry.modify_index, index);

    let held = vec![TxnOp::CheckSession { key: key(), session }, TxnOp::CheckIndex { key: key(), index }];
    assert!(client.transact(held).await.unwrap().is_applied());
    for wrong in [
        TxnOp::CheckNotExists { key: key() },
        TxnOp::CheckSession { key: key(), session: "b7e9f0ee-0000-0000-0000-000000000000".to_owned() },
        TxnOp::CheckIndex { key: key(), index: index + 1 },
        TxnOp::DeleteCas { key: key(), index: index + 1 },
    ] {
        let written = client.transact(vec![wrong.clone()]).await.unwrap();
        assert!(matches!(written, Written::Refused { .. }), "{wrong:?}: {written:?}");
    }
    assert!(client.transact(vec![TxnOp::DeleteCas { key: key(), index }]).await.unwrap().is_applied());
    assert_eq!(client.get(&key(), Consistency::Consistent).await.unwrap(), None);
}

#[tokio::test]
async fn an_answer_consumes_the_request_it_is_for_and_no_other() {
    let (_server, client) = consul().await;
    let command = Command {
        id: "c1".to_owned(),
        op: CommandOp::Switchover,
        target: None,
        expect_epoch: 3,
        expires_at: 0,
        by: "test".to_owned(),
        grace_ms: None,
    };
    assert!(client.put_command(&group(), &command).await.unwrap().is_applied());
    let (_, index) = client.read_group(&group()).await.unwrap().command.unwrap();
    let outcome = Outcome { id: "c1".to_owned(), done: false, epoch: 3, message: "no".to_owned() };
    let late = client.transact(answer_ops(client.layout(), &group(), &outcome, index + 1)).await.unwrap();
    assert!(matches!(late, Written::Refused { .. }), "{late:?}");
    assert_eq!(client.result(&group(), "c1").await.unwrap(), None);

    assert!(client.transact(answer_ops(client.layout(), &group(), &outcome, index)).await.unwrap().is_applied());
    assert_eq!(client.read_group(&group()).await.unwrap().command, None);
    assert_eq!(client.result(&group(), "c1").await.unwrap(), Some(outcome));
}
