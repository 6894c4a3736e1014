//! Real Debian machines by hand: `machines` without arguments prints its usage.

use gaiola_e2e::machines::{
    BY_HAND, Image, MOST, Rack, address, cloud, impossible, internal, load,
};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

const USAGE: &str = "\
machines image [bare|prepared]       build an image; without one, `up` does
machines up [COUNT] [bare|prepared]  a network, and machines m1 to mCOUNT (3 unless given) that answer on port 22
machines list                        the machines, their addresses and their pid 1
machines on NAME [bare|prepared]     switch a machine on, a new one too
machines off|crash|reboot NAME       stop it in order; cut its power; restart it
machines cable NAME up|down          plug its cable in; pull it
machines cloud on|off                a network as clouds have it: no multicast, no source but a machine's own address
machines run machines api             a cloud's network, and an API that moves addresses in it, at 10.78.0.1:8099
machines ssh [OPTION...] NAME [COMMAND...]
machines run COMMAND...              a command on the operator's host, 10.78.0.1, where `ssh m1` leads to a machine
machines shell NAME COMMAND...       a command on a machine, without ssh
machines load DOOR RATE [WEBSOCKETS] clients of the guest book at ADDRESS:PORT until standard input ends, and what they saw
machines down                        take all of it down; the disks stay
machines wipe                        besides, remove the disks
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(ended) = internal(&args) {
        return code(ended);
    }
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match by_hand(&Rack::named(BY_HAND), &words) {
        Some(ended) => code(ended),
        None => {
            eprint!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn code(ended: io::Result<()>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("machines: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Carries a command out; `None`: it is none.
fn by_hand(rack: &Rack, words: &[&str]) -> Option<io::Result<()>> {
    let ended = match *words {
        ["image"] => build(Image::Prepared),
        ["image", image] => build(Image::named(image)?),
        ["up"] => up(rack, 3, Image::Bare),
        ["up", count] => up(rack, number(count)?, Image::Bare),
        ["up", count, image] => up(rack, number(count)?, Image::named(image)?),
        ["list"] => list(rack),
        ["on", name] => rack.on(name, Image::Bare),
        ["on", name, image] => rack.on(name, Image::named(image)?),
        ["off", name] => rack.off(name),
        ["crash", name] => rack.crash(name),
        ["reboot", name] => rack.reboot(name),
        ["cable", name, end @ ("up" | "down")] => rack.cable(name, end == "up"),
        ["cloud", end @ ("on" | "off")] => rack.cloud(end == "on"),
        ["api"] => cloud::serve(),
        ["ssh", ref args @ ..] => replace(rack.command("ssh"), args),
        ["run", program, ref args @ ..] => replace(rack.command(program), args),
        ["shell", name, program, ref args @ ..] => replace(rack.shell(name, program), args),
        ["load", door, rate] => load(door.parse().ok()?, rate.parse().ok()?, 0),
        ["load", door, rate, sockets] => load(
            door.parse().ok()?,
            rate.parse().ok()?,
            sockets.parse().ok()?,
        ),
        ["down"] => rack.down(),
        ["wipe"] => rack.wipe(),
        _ => return None,
    };
    Some(ended)
}

fn number(count: &str) -> Option<u8> {
    count
        .parse()
        .ok()
        .filter(|count| (1..=MOST).contains(count))
}

fn build(image: Image) -> io::Result<()> {
    match impossible(image) {
        Some(why) => Err(io::Error::other(why)),
        None => image.build(),
    }
}

fn up(rack: &Rack, count: u8, image: Image) -> io::Result<()> {
    build(image)?;
    if rack.pid_1().is_err() {
        rack.detach()?;
    }
    rack.up(count, image)
}

fn list(rack: &Rack) -> io::Result<()> {
    for name in rack.machines() {
        let power = match rack.leader(&name) {
            Some(pid) => format!("on, pid 1 is {pid}"),
            None => "off".into(),
        };
        println!("{name}\t{}\t{power}", address(&name)?);
    }
    Ok(())
}

/// Becomes that command.
fn replace(command: io::Result<Command>, args: &[&str]) -> io::Result<()> {
    Err(command?.args(args).exec())
}
