//! Frames of a hostile guest: the network survives them, and still answers afterwards.
//!
//! Whatever is sent beyond the virtual network goes to the discard port of loopback, so that nothing leaves this host.
#![no_main]

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Duration;

use machine::backend::{FrameSink, NetworkBackend};
use machine::clock::Clock;
use network::{Config, NameServers, Network};

const ETHERNET: usize = 14;
const ROUTER: [u8; 6] = [0x52, 0x55, 10, 0, 2, 2];

/// Counts the frames that the network sends.
#[derive(Default)]
struct Ring {
    frames: Mutex<VecDeque<Vec<u8>>>,
    arrived: Condvar,
}

impl FrameSink for Ring {
    fn receive(&self, frame: &[u8]) -> bool {
        let Ok(mut frames) = self.frames.lock() else { return true };
        frames.push_back(frame.to_vec());
        self.arrived.notify_one();
        true
    }
}

fn network() -> &'static (Network, Arc<Ring>) {
    static NETWORK: OnceLock<(Network, Arc<Ring>)> = OnceLock::new();
    NETWORK.get_or_init(|| {
        let config = Config { name_servers: NameServers::Fixed(Vec::new()), ..Config::default() };
        let network = Network::start(config, Arc::new(Clock::new()))
            .unwrap_or_else(|error| panic!("the host gives no network to test: {error}"));
        let ring = Arc::new(Ring::default());
        network.attach(Arc::clone(&ring) as Arc<dyn FrameSink>);
        (network, ring)
    })
}

/// A frame from the fuzzer's bytes: as they are if they do not begin with an IPv4 protocol that the network knows, else the
/// payload of a packet that the network takes. Ports of the host are always the discard port's.
fn frame(bytes: &[u8]) -> Vec<u8> {
    let [protocol @ (1 | 6 | 17), to, fragment, offset, payload @ ..] = bytes else {
        let mut frame = bytes.to_vec();
        // Anything but IPv4, which could go anywhere.
        if frame.get(12..14) == Some(&[8, 0]) {
            frame[13] = 6;
        }
        return frame;
    };
    let mut payload = payload.to_vec();
    let to = [2, 3, 15, 255][usize::from(to & 3)];
    if let Some(ports) = payload.get_mut(..4) {
        let port = if *protocol == 17 && to == 2 && ports[3] == 67 {
            67
        } else if to == 3 {
            53
        } else {
            9
        };
        ports[2..].copy_from_slice(&[0, port]);
        // Few ports of the guest, so that packets belong together.
        ports[0] = 0;
        ports[1] = ports[1] & 3 | 4;
    }
    let mut frame = ROUTER.to_vec();
    frame.extend([2, 0, 0, 0, 0, 9, 8, 0]);
    let Ok(length) = u16::try_from(20 + payload.len()) else { return frame };
    let mut header = vec![0x45, 0];
    header.extend(length.to_be_bytes());
    header.extend([0, 1]);
    header.extend(if fragment & 1 == 0 { [0, 0] } else { [fragment & 0x20, offset & 7] });
    header.extend([64, *protocol, 0, 0, 10, 0, 2, 15, 10, 0, 2, to]);
    let sum = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    header[10..12].copy_from_slice(&(!folded).to_be_bytes()[2..]);
    frame.extend(header);
    frame.extend(payload);
    frame
}

libfuzzer_sys::fuzz_target!(|frames: Vec<Vec<u8>>| {
    let (network, ring) = network();
    for bytes in frames {
        network.send(&frame(&bytes));
    }
    // An ARP request for the router: its answer comes after everything else was looked at.
    let mut request = vec![0xff; 6];
    request.extend([2, 0, 0, 0, 0, 9, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    request.extend([2, 0, 0, 0, 0, 9, 10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2]);
    network.send(&request);
    loop {
        let Ok(mut waiting) = ring.frames.lock() else { return };
        while waiting.is_empty() {
            let (guard, timeout) = match ring.arrived.wait_timeout(waiting, Duration::from_secs(10)) {
                Ok(result) => result,
                Err(_) => return,
            };
            assert!(!timeout.timed_out() || !guard.is_empty(), "the network answers no more");
            waiting = guard;
        }
        let answered =
            waiting.drain(..).any(|frame| frame.len() >= ETHERNET + 8 && frame[12..14] == [8, 6] && frame[21] == 2);
        if answered {
            break;
        }
    }
});
