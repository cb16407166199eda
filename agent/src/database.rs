//! The task that owns an instance's database: it carries out one order at a time, refuses one that was decided for an
//! older record than it has seen, and tells the moment the process ends.

use crate::engine::{Database, Engine};
use crate::instance::Message;
use crate::step::{Done, Event};
use election::{EngineOp, Stamp};
use tokio::sync::mpsc;

/// What the task is asked to do.
#[derive(Debug)]
pub(crate) enum Order {
    /// Say how the database is.
    Probe,
    /// Do this, decided for the record of this age, then say how the database is.
    Apply(Stamp, EngineOp),
}

/// Runs until the orders end. The database goes on.
pub(crate) async fn run(mut engine: Database, mut orders: mpsc::Receiver<Order>, sender: mpsc::Sender<Message>) {
    let mut seen = Stamp::default();
    let mut exits = engine.exited();
    loop {
        let order = tokio::select! {
            biased;
            changed = exits.changed() => {
                if changed.is_err() {
                    return;
                }
                let found = engine.probe().await;
                let _ = sender.send(Message::Event(Event::Engine(found))).await;
                continue;
            }
            order = orders.recv() => order,
        };
        let message = match order {
            None => return,
            Some(Order::Probe) => Message::Probed(engine.probe().await),
            Some(Order::Apply(stamp, op)) if stamp < seen => {
                let why = format!("decided for record {stamp}, but {seen} has been acted on");
                Message::Done(Box::new(Done::Engine(op, Err(why), engine.probe().await)))
            }
            Some(Order::Apply(stamp, mut op)) => {
                seen = stamp;
                let result = engine.apply(&op).await.map_err(|e| crate::error_chain(&e));
                if let (EngineOp::Channel { secret, .. }, Ok(()), Some(in_force)) =
                    (&mut op, &result, engine.secret_in_force())
                {
                    // The agent gives out what it takes for the password.
                    *secret = in_force;
                }
                Message::Done(Box::new(Done::Engine(op, result, engine.probe().await)))
            }
        };
        if sender.send(message).await.is_err() {
            return;
        }
    }
}
