// SPDX-License-Identifier: MIT
// The exec counter in Rust, with aya.
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use aya::maps::RingBuf;
use aya::programs::TracePoint;
use aya::Ebpf;

static ENDED: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_: libc::c_int) {
    ENDED.store(true, Ordering::Relaxed);
}

// Waits until there is an event, for at most a tenth of a second.
fn wait_for(fd: i32) {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    unsafe { libc::poll(&mut poll, 1, 100) };
}

// An event is a u32, the process id, and 16 bytes, its name.
fn print(event: &[u8]) -> std::io::Result<()> {
    let pid = u32::from_ne_bytes(event[..4].try_into().unwrap());
    let name = event[4..20].split(|byte| *byte == 0).next().unwrap_or_default();
    let mut out = std::io::stdout();
    writeln!(out, "{pid} {}", String::from_utf8_lossy(name))?;
    out.flush()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    unsafe {
        libc::signal(libc::SIGTERM, on_signal as *const () as libc::sighandler_t);
        libc::signal(libc::SIGINT, on_signal as *const () as libc::sighandler_t);
    }
    let mut counter = Ebpf::load(aya::include_bytes_aligned!(env!("EXEC_COUNT")))?;
    let program: &mut TracePoint = counter.program_mut("trace_exec").unwrap().try_into()?;
    program.load()?;
    program.attach("sched", "sched_process_exec")?;
    let mut events = RingBuf::try_from(counter.map_mut("events").unwrap())?;
    while !ENDED.load(Ordering::Relaxed) {
        wait_for(events.as_raw_fd());
        while let Some(event) = events.next() {
            print(&event)?;
        }
    }
    Ok(())
}
