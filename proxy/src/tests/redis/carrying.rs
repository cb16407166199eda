//! Requests and replies are carried whole and in order, whatever pieces they come in.

use super::super::world::{Front, limited};
use super::{Database, exchange, expect, lead, master_front, request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

async fn carried() -> (Front, Database) {
    let (front, database) = (master_front().await, Database::start("a").await);
    lead(&front, &database, 1);
    (front, database)
}

#[tokio::test]
async fn requests_are_answered_in_both_spellings_and_in_order() {
    let (front, _database) = carried().await;
    let mut client = front.client().await;
    exchange(&mut client, &request(&["SET", "k", "v"]), "+OK\r\n").await;
    exchange(&mut client, "GET k\r\n", "$1\r\nv\r\n").await;
    let many: String = (0..200).map(|n| request(&["SET", "n", &n.to_string()]) + &request(&["INCR", "n"])).collect();
    let replies: String = (0..200).map(|n| format!("+OK\r\n:{}\r\n", n + 1)).collect();
    exchange(&mut client, &many, &replies).await;
    exchange(
        &mut client,
        "NOSUCH 1\r\nPING\r\n",
        "-ERR unknown command 'NOSUCH', with args beginning with: '1' \r\n+PONG\r\n",
    )
    .await;
}

#[tokio::test]
async fn a_request_may_come_in_pieces_while_others_are_served() {
    let (front, _database) = carried().await;
    let (mut slow, mut quick) = (front.client().await, front.client().await);
    for (n, piece) in request(&["SET", "k", "value"]).as_bytes().chunks(1).enumerate() {
        slow.write_all(piece).await.expect("sent");
        exchange(&mut quick, &request(&["SET", "n", &n.to_string()]), "+OK\r\n").await;
    }
    expect(&mut slow, "+OK\r\n").await;
    exchange(&mut slow, "GET k\r\n", "$5\r\nvalue\r\n").await;
}

#[tokio::test]
async fn big_values_pass_both_ways() {
    const LEN: usize = 12 << 20;
    let (front, _database) = carried().await;
    let mut client = front.client().await;
    let value: Vec<u8> = (0..LEN).map(|n| (n % 251) as u8).collect();
    let head = format!("*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n${LEN}\r\n");
    let whole = [head.as_bytes(), &value, b"\r\n"].concat();
    limited(client.write_all(&whole)).await.expect("sent");
    expect(&mut client, "+OK\r\n").await;
    client.write_all(b"GET big\r\n").await.expect("sent");
    expect(&mut client, &format!("${LEN}\r\n")).await;
    let mut got = vec![0; LEN];
    limited(client.read_exact(&mut got)).await.expect("it arrives");
    assert!(got == value, "other bytes came back");
    expect(&mut client, "\r\n").await;
}

#[tokio::test]
async fn many_clients_get_their_own_answers() {
    let (front, _database) = carried().await;
    let mut clients = JoinSet::new();
    for number in 0..300 {
        let mut client = front.client().await;
        clients.spawn(async move {
            let key = format!("key:{number}");
            for round in 0..20 {
                let value = format!("{number}:{round}");
                let both = request(&["SET", &key, &value]) + &request(&["GET", &key]);
                exchange(&mut client, &both, &format!("+OK\r\n${}\r\n{value}\r\n", value.len())).await;
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.expect("its own answers");
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_hinders_nobody() {
    let (front, _database) = carried().await;
    let mut other = front.client().await;
    exchange(&mut other, &request(&["SET", "k", &"x".repeat(100_000)]), "+OK\r\n").await;
    let mut deaf = front.client().await;
    // Far more replies than sockets hold.
    deaf.write_all("GET k\r\n".repeat(500).as_bytes()).await.expect("sent");
    for _ in 0..50 {
        exchange(&mut other, "PING\r\n", "+PONG\r\n").await;
    }
    let mut got = vec![0; 500 * (100_000 + "$100000\r\n\r\n".len())];
    limited(deaf.read_exact(&mut got)).await.expect("all of it was kept for it");
    assert!(got.ends_with(b"xx\r\n"));
}

#[tokio::test]
async fn a_client_that_has_said_all_still_gets_its_answers() {
    let (front, _database) = carried().await;
    let mut client = front.client().await;
    client.write_all(b"SET k v\r\nGET k\r\n").await.expect("sent");
    client.shutdown().await.expect("its own end");
    let mut said = String::new();
    limited(client.read_to_string(&mut said)).await.expect("an orderly end");
    assert_eq!(said, "+OK\r\n$1\r\nv\r\n");
}

#[tokio::test]
async fn nonsense_is_refused_and_costs_only_its_own_connection() {
    let (front, _database) = carried().await;
    let mut other = front.client().await;
    exchange(&mut other, "PING\r\n", "+PONG\r\n").await;
    let mut client = front.client().await;
    client.write_all(b"*1\r\n$nonsense\r\n").await.expect("sent");
    let mut said = String::new();
    limited(client.read_to_string(&mut said)).await.expect("an orderly end");
    assert_eq!(said, "-ERR Protocol error: invalid bulk length\r\n");
    exchange(&mut other, "PING\r\n", "+PONG\r\n").await;
}

#[tokio::test]
async fn clients_share_their_links() {
    let (front, database) = carried().await;
    let mut clients: Vec<TcpStream> = Vec::new();
    for _ in 0..50 {
        let mut client = front.client().await;
        exchange(&mut client, "PING\r\n", "+PONG\r\n").await;
        clients.push(client);
    }
    let connected = database.ask("INFO clients").await;
    let count: usize = connected
        .lines()
        .find_map(|line| line.strip_prefix("connected_clients:")?.trim().parse().ok())
        .expect("a number of clients");
    assert!(count < 12, "{count} connections for 50 clients");
}
