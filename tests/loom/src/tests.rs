use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::thread;

use crate::lane::{Receiver, lane};
use crate::returns::Returns;
use crate::sleep::SleepFlag;

#[test]
fn values_cross_a_lane_in_order_and_once() {
    loom::model(|| {
        let (mut tx, mut rx) = lane(2);
        let sender = thread::spawn(move || {
            for mut value in (0..3).map(Box::new) {
                while let Err(back) = tx.push(value) {
                    value = back;
                    thread::yield_now();
                }
            }
        });
        for expected in 0..3 {
            let value = loop {
                match rx.pop() {
                    Some(value) => break value,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(*value, expected);
        }
        assert!(rx.is_empty());
        sender.join().unwrap();
    });
}

#[test]
fn what_is_left_in_a_lane_is_dropped_by_the_last_side() {
    loom::model(|| {
        let counted = std::sync::Arc::new(());
        let (mut tx, mut rx) = lane(2);
        let value = counted.clone();
        let sender = thread::spawn(move || assert!(tx.push(value).is_ok()));
        drop(rx.pop());
        drop(rx);
        sender.join().unwrap();
        assert_eq!(std::sync::Arc::strong_count(&counted), 1);
    });
}

/// A shard's way into sleep, as `Io` describes it; the kernel's part is played by a thread that waits for `woken`.
struct Sleeper {
    flag: SleepFlag,
    woken: AtomicBool,
}

impl Sleeper {
    fn new() -> Arc<Sleeper> {
        Arc::new(Sleeper { flag: SleepFlag::new(), woken: AtomicBool::new(false) })
    }

    fn call(&self) {
        if self.flag.call() {
            self.woken.swap(true, Ordering::AcqRel);
        }
    }

    /// One turn. True if it would sleep for ever: fell asleep, and every sender is done and has not woken it.
    fn turn(&self, lanes_are_empty: impl Fn() -> bool, order: Order, senders_left: &AtomicU32) {
        if order == Order::CheckFirst && !lanes_are_empty() {
            return;
        }
        self.flag.announce();
        if order == Order::AnnounceFirst && !lanes_are_empty() {
            return self.flag.wake_up();
        }
        if self.flag.fall_asleep() {
            while !self.woken.swap(false, Ordering::AcqRel) {
                let over = senders_left.load(Ordering::Acquire) == 0;
                assert!(!over || self.woken.load(Ordering::Acquire), "sleeps for ever");
                thread::yield_now();
            }
        }
        self.flag.wake_up();
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Order {
    AnnounceFirst,
    /// The classic mistake.
    CheckFirst,
}

fn sleep_and_call(order: Order, senders: u32) {
    let sleeper = Sleeper::new();
    let left = Arc::new(AtomicU32::new(senders));
    let mut lanes: Vec<Receiver<u32>> = Vec::new();
    let mut threads = Vec::new();
    for sender in 0..senders {
        let (mut tx, rx) = lane(1);
        lanes.push(rx);
        let (sleeper, left) = (sleeper.clone(), left.clone());
        threads.push(thread::spawn(move || {
            tx.push(sender).unwrap();
            sleeper.call();
            left.fetch_sub(1, Ordering::AcqRel);
        }));
    }
    let mut got = 0;
    while got < senders {
        got += lanes.iter_mut().filter_map(|lane| lane.pop()).count() as u32;
        if got < senders {
            sleeper.turn(|| lanes.iter().all(|lane| lane.is_empty()), order, &left);
        }
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn no_wake_up_is_lost() {
    loom::model(|| sleep_and_call(Order::AnnounceFirst, 1));
}

#[test]
fn no_wake_up_of_two_senders_is_lost() {
    loom::model(|| sleep_and_call(Order::AnnounceFirst, 2));
}

#[test]
#[should_panic(expected = "sleeps for ever")]
fn a_check_before_the_announcement_loses_one() {
    loom::model(|| sleep_and_call(Order::CheckFirst, 1));
}

#[test]
fn receive_buffers_come_back_once_from_several_threads() {
    loom::model(|| {
        let returns = Arc::new(Returns::new(3));
        let threads: Vec<_> = (0..2)
            .map(|id| {
                let returns = returns.clone();
                thread::spawn(move || returns.put(id))
            })
            .collect();
        let mut got = Vec::new();
        returns.take_all(&mut got);
        // What was taken may go out and come back while the others still put.
        got.iter().for_each(|id| returns.put(*id));
        got.clear();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        returns.take_all(&mut got);
        got.sort_unstable();
        assert_eq!(got, [0, 1]);
    });
}
