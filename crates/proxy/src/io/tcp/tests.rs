//! Connections with small socket buffers.

use super::super::testing::{pair, run};
use super::*;
use crate::counters::{Apart, Count};
use std::future::poll_fn;
use std::io::Read;
use std::net::TcpStream as Peer;
use std::sync::Arc;

async fn write(tcp: &Tcp, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let pieces = [IoSlice::new(bytes)];
        let count = poll_fn(|cx| tcp.poll_write(cx, &pieces)).await.unwrap();
        bytes = &bytes[count..];
    }
}

/// Reads slowly until the end.
fn all_of(mut peer: Peer) -> Vec<u8> {
    let (mut all, mut piece) = (Vec::new(), [0; 3000]);
    loop {
        std::thread::sleep(Duration::from_micros(50));
        match peer.read(&mut piece).unwrap() {
            0 => return all,
            count => all.extend_from_slice(&piece[..count]),
        }
    }
}

fn numbers(count: u32) -> Vec<u8> {
    (0..count).flat_map(u32::to_le_bytes).collect()
}

#[test]
fn small_messages_leave_behind_what_is_ready() {
    run(async {
        let (tcp, mut peer) = pair();
        write(&tcp, b"one").await;
        write(&tcp, b"two").await;
        peer.set_nonblocking(true).unwrap();
        let mut got = [0; 6];
        let nothing = peer.read(&mut got).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        tokio::task::yield_now().await;
        peer.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"onetwo");
        assert_eq!(tcp.left(), 6);
    });
}

#[test]
fn small_and_large_pieces_arrive_in_order_however_slowly_they_are_taken() {
    run(async {
        let (tcp, peer) = pair();
        let taking = std::thread::spawn(move || all_of(peer));
        let sent = numbers(50_000);
        let mut rng = fastrand::Rng::with_seed(3);
        let mut rest = &sent[..];
        while !rest.is_empty() {
            let longest = [10, 1000, 20_000][rng.usize(0..3)];
            let (piece, others) = rest.split_at(rng.usize(1..=longest).min(rest.len()));
            write(&tcp, piece).await;
            rest = others;
            if rng.u8(0..8) == 0 {
                tokio::task::yield_now().await;
            }
        }
        poll_fn(|cx| tcp.poll_shutdown(cx)).await.unwrap();
        assert!(taking.join().unwrap() == sent);
    });
}

#[test]
fn what_is_late_arrives_though_nobody_has_the_connection_any_more() {
    run(async {
        let late: Arc<Apart<Count>> = Arc::default();
        outbox::begin(&late);
        let (tcp, peer) = pair();
        let sent = numbers(1_000_000);
        let mut count = 0;
        while !matches!(*tcp.0.sending.borrow(), Sending::Late(_)) {
            write(&tcp, &sent[count..count + 1000]).await;
            count += 1000;
            outbox::flush();
        }
        drop(tcp);
        tokio::task::yield_now().await;
        assert_eq!(late.get(), 1);
        let taking = tokio::task::spawn_blocking(move || all_of(peer));
        assert!(taking.await.unwrap() == sent[..count]);
        assert_eq!(late.get(), 0);
    });
}

#[test]
fn a_reset_met_in_sending_is_reported_by_the_next_read() {
    run(async {
        let (tcp, peer) = pair();
        rustix::net::sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
        drop(peer);
        write(&tcp, b"too late").await;
        outbox::flush();
        let read = poll_fn(|cx| tcp.poll_read(cx, &mut ReadBuf::new(&mut [0; 10]))).await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(tcp.left(), 0);
    });
}

#[test]
fn who_reads_nothing_has_no_more_written_than_there_is_room_for() {
    run(async {
        let (tcp, _peer) = pair();
        let mut written = 0;
        let pieces = [IoSlice::new(&[7; 1000])];
        while let Ok(count) = tcp.try_write(&pieces) {
            written += count;
            assert!(written < 4_000_000, "there is no end of it");
        }
        assert!(tcp.0.late() <= WAITING);
    });
}

#[test]
fn what_is_abandoned_never_leaves() {
    run(async {
        let (tcp, peer) = pair();
        write(&tcp, b"never").await;
        tcp.abandon();
        drop(tcp);
        outbox::flush();
        assert_eq!(all_of(peer), b"");
    });
}

#[test]
fn what_never_left_is_followed_by_a_reset() {
    run(async {
        let (tcp, mut peer) = pair();
        while tcp.0.late() == 0 {
            write(&tcp, &[7; 1000]).await;
            outbox::flush();
        }
        tcp.reset_when_dropped();
        drop(tcp);
        let reading = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            peer.read_to_end(&mut all)
        });
        let error = reading.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
}
