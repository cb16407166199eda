//! Accounts between which transfers move money: none comes into being and none goes.

use std::fmt;

/// What the accounts held at first, whenever somebody added them up, and at the end.
#[derive(Debug, Clone, Default)]
pub struct Bank {
    /// What each account held at first.
    pub opening: i64,
    /// What each holds at the end.
    pub accounts: Vec<i64>,
    /// The transfers that are there at the end, one for every time that it was found.
    pub transfers: Vec<Transfer>,
    /// Every answer to who added all accounts up in one statement.
    pub sums: Vec<Sum>,
}

/// Some money from one account to another, by their places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// Out of this account
    pub from: usize,
    /// into this one.
    pub to: usize,
    /// How much.
    pub amount: i64,
}

/// What all accounts held together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    /// Who asked.
    pub client: usize,
    /// When, in microseconds since the history began.
    pub begin: u64,
    /// When the answer came.
    pub end: u64,
    /// The answer.
    pub total: i64,
}

/// An account that does not hold what its transfers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Its place.
    pub account: usize,
    /// What it holds.
    pub holds: i64,
    /// What it should hold.
    pub should: i64,
}

impl Bank {
    /// The answers in which money had come into being or gone.
    pub(super) fn wrong_sums(&self) -> Vec<Sum> {
        let all = self.opening * i64::try_from(self.accounts.len()).unwrap_or(i64::MAX);
        self.sums.iter().filter(|sum| sum.total != all).cloned().collect()
    }

    /// The accounts that do not hold what the transfers which are there make of them: of one transfer only a part was
    /// done, or more than the whole.
    pub(super) fn wrong_accounts(&self) -> Vec<Account> {
        let mut should = vec![self.opening; self.accounts.len()];
        for transfer in &self.transfers {
            for (account, change) in [(transfer.from, -transfer.amount), (transfer.to, transfer.amount)] {
                if let Some(balance) = should.get_mut(account) {
                    *balance += change;
                }
            }
        }
        let all = self.accounts.iter().zip(should).enumerate();
        let all = all.map(|(account, (holds, should))| Account { account, holds: *holds, should });
        all.filter(|account| account.holds != account.should).collect()
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (begin, end) = (self.begin / 1_000, self.end / 1_000);
        write!(f, "client {}: {}, {begin} to {end} ms", self.client, self.total)
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "account {} holds {}, not {}", self.account, self.holds, self.should)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bank(accounts: &[i64], transfers: &[(usize, usize, i64)]) -> Bank {
        let transfers = transfers.iter().map(|(from, to, amount)| Transfer { from: *from, to: *to, amount: *amount });
        Bank { opening: 100, accounts: accounts.to_vec(), transfers: transfers.collect(), sums: Vec::new() }
    }

    fn sum(total: i64) -> Sum {
        Sum { client: 1, begin: 0, end: 5, total }
    }

    #[test]
    fn a_sum_that_is_not_the_same_is_found() {
        let sums = vec![sum(300), sum(299), sum(300)];
        assert_eq!(Bank { sums, ..bank(&[100, 100, 100], &[]) }.wrong_sums(), [sum(299)]);
    }

    #[test]
    fn accounts_hold_what_their_transfers_say() {
        assert!(bank(&[60, 130, 110], &[(0, 1, 30), (0, 2, 10)]).wrong_accounts().is_empty());
    }

    #[test]
    fn half_a_transfer_is_found() {
        let wrong = bank(&[70, 100], &[(0, 1, 30)]).wrong_accounts();
        assert_eq!(wrong, [Account { account: 1, holds: 100, should: 130 }]);
    }

    #[test]
    fn a_transfer_whose_money_moved_without_a_row_is_found() {
        // The sum is right, and what the accounts hold comes from nowhere.
        assert_eq!(bank(&[70, 130], &[]).wrong_accounts().len(), 2);
        assert_eq!(bank(&[70, 130], &[(0, 1, 30), (0, 1, 30)]).wrong_accounts().len(), 2);
    }
}
