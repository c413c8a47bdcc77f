//! Parallel work on a list of items.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Calls `work` for every item, in `workers` threads, starting with the first item. Returns the results in the order of
/// the items.
pub fn side_by_side<T: Sync, E: Send>(workers: usize, items: &[T], work: impl Fn(&T) -> E + Sync) -> Vec<E> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut results = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return results };
            results.push((index, work(item)));
        }
    };
    let mut results: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        let join =
            |worker: thread::ScopedJoinHandle<'_, Vec<_>>| worker.join().unwrap_or_else(|panic| resume_unwind(panic));
        workers.into_iter().flat_map(join).collect()
    });
    results.sort_by_key(|&(index, _)| index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Runs `other` on a thread of its own while this one runs `work`, and returns both results.
pub fn both<T: Send, W>(other: impl FnOnce() -> T + Send, work: impl FnOnce() -> W) -> (T, W) {
    thread::scope(|scope| {
        let other = scope.spawn(other);
        let result = work();
        (other.join().unwrap_or_else(|panic| resume_unwind(panic)), result)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items() {
        let items: Vec<usize> = (0..100).collect();
        assert_eq!(side_by_side(7, &items, |item| item * 2), items.iter().map(|item| item * 2).collect::<Vec<_>>());
        assert!(side_by_side(0, &[0; 0], |item| *item).is_empty());
    }

    #[test]
    fn both_results_are_returned() {
        let (send, receive) = std::sync::mpsc::channel();
        // Each waits for the other one.
        let (first, second) = both(move || receive.recv().unwrap(), || send.send("sent"));
        assert_eq!((first, second), ("sent", Ok(())));
    }
}
