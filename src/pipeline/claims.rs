//! Claims as the catalog knows them, asked for many objects at once.
//!
//! # Contract
//! One question is on its way to the catalog at a time. Who asks meanwhile waits for it to be answered, and is then
//! asked for together with all others who wait: many small objects cost few statements, and a lone one does not wait.
//! An answer sees every commit that finished before its question was put.
//! # Cancellation
//! Who asks for all may be dropped: the others ask again.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use deadpool_postgres::Pool;
use tokio::sync::oneshot;

use crate::catalog::{self, CatalogError, ClaimQuestion};
use crate::client::postgres;
use crate::source::object_reader::{Claims, ClaimsError};
use crate::types::{MicroBatchId, ObjectLocation};

/// More would be one long statement.
const QUESTIONS_MAX: usize = 1000;

/// Claims as the catalog knows them.
pub struct CatalogClaims {
    pool: Pool,
    cluster_id: String,
    consumer_group: String,
    gathered: Gathered<ClaimQuestion, HashSet<String>, CatalogError>,
}

impl CatalogClaims {
    pub(super) fn new(pool: Pool, cluster_id: String, consumer_group: String) -> Self {
        Self { pool, cluster_id, consumer_group, gathered: Gathered::default() }
    }

    async fn look_up(&self, questions: Vec<ClaimQuestion>) -> Result<Vec<HashSet<String>>, CatalogError> {
        let client = postgres::get(&self.pool).await.map_err(CatalogError::Connect)?;
        catalog::claimed(&client, &self.cluster_id, &self.consumer_group, &questions).await
    }
}

impl Claims for CatalogClaims {
    async fn claimed(
        &self,
        location: &ObjectLocation,
        versions: &[String],
        replaced: Option<MicroBatchId>,
    ) -> Result<HashSet<String>, ClaimsError> {
        let question = ClaimQuestion { location: location.clone(), versions: versions.to_vec(), replaced };
        let answer = self.gathered.ask(question, |questions| self.look_up(questions)).await;
        answer.map_err(|error| ClaimsError { kind: error.kind(), source: Box::new(error) })
    }
}

type Answer<A, E> = Result<A, Arc<E>>;

/// Questions that wait to be put together.
struct Gathered<Q, A, E> {
    waiting: Mutex<Vec<(Q, oneshot::Sender<Answer<A, E>>)>>,
    /// Held by the one who puts them.
    turn: tokio::sync::Mutex<()>,
}

impl<Q, A, E> Default for Gathered<Q, A, E> {
    fn default() -> Self {
        Self { waiting: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }
}

impl<Q: Clone, A, E> Gathered<Q, A, E> {
    /// `put` gives an answer for each question, in their order.
    async fn ask<F: Future<Output = Result<Vec<A>, E>>>(
        &self,
        question: Q,
        put: impl Fn(Vec<Q>) -> F,
    ) -> Result<A, Arc<E>> {
        loop {
            let (sender, mut answer) = oneshot::channel();
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push((question.clone(), sender));
            tokio::select! {
                biased;
                // closed where the one who put it was dropped
                answered = &mut answer => match answered {
                    Ok(answered) => return answered,
                    Err(_) => continue,
                },
                _turn = self.turn.lock() => self.put_all(&put).await,
            }
            if let Ok(answered) = answer.await {
                return answered;
            }
        }
    }

    async fn put_all<F: Future<Output = Result<Vec<A>, E>>>(&self, put: &impl Fn(Vec<Q>) -> F) {
        let mut waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        while !waiting.is_empty() {
            let rest = waiting.split_off(waiting.len().min(QUESTIONS_MAX));
            let (questions, senders): (Vec<Q>, Vec<_>) = std::mem::replace(&mut waiting, rest).into_iter().unzip();
            let answers: Vec<Answer<A, E>> = match put(questions).await {
                Ok(answers) => answers.into_iter().map(Ok).collect(),
                Err(error) => {
                    let error = Arc::new(error);
                    senders.iter().map(|_| Err(Arc::clone(&error))).collect()
                }
            };
            for (sender, answer) in senders.into_iter().zip(answers) {
                // whoever asked may be gone
                let _ = sender.send(answer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    #[derive(Default)]
    struct Oracle {
        gathered: Gathered<u32, u32, &'static str>,
        gate: Option<Semaphore>,
        puts: Mutex<Vec<usize>>,
        failures: AtomicUsize,
    }

    impl Oracle {
        fn closed() -> Arc<Self> {
            Arc::new(Self { gate: Some(Semaphore::new(0)), ..Self::default() })
        }

        fn ask(self: &Arc<Self>, question: u32) -> tokio::task::JoinHandle<Answer<u32, &'static str>> {
            let oracle = Arc::clone(self);
            tokio::spawn(async move { oracle.gathered.ask(question, |questions| oracle.put(questions)).await })
        }

        async fn put(&self, questions: Vec<u32>) -> Result<Vec<u32>, &'static str> {
            self.puts.lock().unwrap().push(questions.len());
            if let Some(gate) = &self.gate {
                gate.acquire().await.unwrap().forget();
            }
            if self.failures.load(Ordering::Relaxed) > 0 {
                self.failures.fetch_sub(1, Ordering::Relaxed);
                return Err("no answer");
            }
            Ok(questions.into_iter().map(|question| question * 10).collect())
        }

        fn open(&self, count: usize) {
            self.gate.as_ref().unwrap().add_permits(count);
        }

        async fn settle(&self) {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn who_asks_while_a_question_is_out_is_asked_for_together_with_the_others() {
        let oracle = Oracle::closed();
        let first = oracle.ask(1);
        oracle.settle().await;
        let others: Vec<_> = (2..50).map(|question| oracle.ask(question)).collect();
        oracle.settle().await;
        assert_eq!(*oracle.puts.lock().unwrap(), [1], "one at a time, and the first did not wait");
        oracle.open(2);
        assert_eq!(first.await.unwrap(), Ok(10));
        for (answer, question) in others.into_iter().zip(2..) {
            assert_eq!(answer.await.unwrap(), Ok(question * 10));
        }
        assert_eq!(*oracle.puts.lock().unwrap(), [1, 48]);
    }

    #[tokio::test]
    async fn the_others_ask_again_when_the_one_who_asks_for_all_is_dropped() {
        let oracle = Oracle::closed();
        let first = oracle.ask(1);
        oracle.settle().await;
        let (second, third) = (oracle.ask(2), oracle.ask(3));
        oracle.settle().await;
        oracle.open(1);
        assert_eq!(first.await.unwrap(), Ok(10));
        oracle.settle().await;
        assert_eq!(*oracle.puts.lock().unwrap(), [1, 2]);
        // one of the two asks for both
        second.abort();
        oracle.settle().await;
        oracle.open(5);
        assert_eq!(third.await.unwrap(), Ok(30));
    }

    #[tokio::test]
    async fn an_error_is_told_to_all_who_were_asked_for_and_to_nobody_else() {
        let oracle = Oracle::closed();
        oracle.failures.store(1, Ordering::Relaxed);
        let first = oracle.ask(1);
        oracle.settle().await;
        let second = oracle.ask(2);
        oracle.settle().await;
        oracle.open(2);
        assert_eq!(first.await.unwrap(), Err(Arc::new("no answer")));
        assert_eq!(second.await.unwrap(), Ok(20));
    }

    #[tokio::test]
    async fn more_than_a_statement_takes_are_asked_for_in_several() {
        let oracle = Oracle::closed();
        let first = oracle.ask(0);
        oracle.settle().await;
        let others: Vec<_> = (0..2500).map(|question| oracle.ask(question)).collect();
        oracle.settle().await;
        oracle.open(10);
        first.await.unwrap().unwrap();
        for (answer, question) in others.into_iter().zip(0..) {
            assert_eq!(answer.await.unwrap(), Ok(question * 10));
        }
        assert_eq!(*oracle.puts.lock().unwrap(), [1, 1000, 1000, 500]);
    }
}
