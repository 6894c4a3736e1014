//! A cloud's API, in place of a provider's: it alone says which machine an address leads to, and may be slow, fail or hang.
//!
//! It answers one line for one line, at 10.78.0.1:8099:
//!
//! | line | what it does | answer |
//! | --- | --- | --- |
//! | `assign VIP ADDRESS` | leads the VIP to the machine with this address | `ok` |
//! | `holder VIP` | | its machine's address, `none` |
//! | `be prompt`, `be slow`, `be broken`, `be hung` | how it treats every later `assign` | `ok` |

use super::Image;
use super::network::{MOST, OPERATOR, cable};
use super::programs::feed;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Its port at the operator's address.
pub const PORT: u16 = 8099;
/// How long a slow one takes.
const SLOW: Duration = Duration::from_secs(4);
/// How long a hung one keeps a connection.
const HUNG: Duration = Duration::from_secs(120);
/// The longest line that is read, in bytes.
const LINE: u64 = 200;

/// How it treats an `assign`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Manner {
    #[default]
    Prompt,
    Slow,
    Broken,
    Hung,
}

#[derive(Debug, Default)]
struct Cloud {
    manner: Manner,
    assigned: BTreeMap<Ipv4Addr, Ipv4Addr>,
}

/// Serves in the rack's network until standard input ends. The network becomes a cloud's at once.
///
/// # Errors
/// Where it cannot listen, or the network not be changed.
pub fn serve() -> io::Result<()> {
    let cloud: &'static Mutex<Cloud> = Box::leak(Box::default());
    apply(&BTreeMap::new())?;
    let listener = TcpListener::bind((OPERATOR, PORT))?;
    writeln!(io::stdout(), "serves")?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever called has given up.
            std::thread::spawn(move || drop(answer(&stream, cloud)));
        }
    });
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}

fn answer(mut stream: &TcpStream, cloud: &Mutex<Cloud>) -> io::Result<()> {
    let mut line = String::new();
    BufReader::new(stream.take(LINE)).read_line(&mut line)?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let said = match *words {
        ["assign", vip, address] => match (vip.parse(), address.parse()) {
            (Ok(vip), Ok(address)) => assign(cloud, vip, address),
            _ => "no addresses".into(),
        },
        ["holder", vip] => {
            let cloud = cloud.lock().unwrap_or_else(PoisonError::into_inner);
            let holder = vip.parse().ok().and_then(|vip| cloud.assigned.get(&vip));
            holder.map_or("none".into(), Ipv4Addr::to_string)
        }
        ["be", manner] => match named(manner) {
            Some(manner) => {
                let mut cloud = cloud.lock().unwrap_or_else(PoisonError::into_inner);
                cloud.manner = manner;
                "ok".into()
            }
            None => "no such manner".into(),
        },
        _ => "no such request".into(),
    };
    writeln!(stream, "{said}")
}

fn named(manner: &str) -> Option<Manner> {
    match manner {
        "prompt" => Some(Manner::Prompt),
        "slow" => Some(Manner::Slow),
        "broken" => Some(Manner::Broken),
        "hung" => Some(Manner::Hung),
        _ => None,
    }
}

fn assign(cloud: &Mutex<Cloud>, vip: Ipv4Addr, address: Ipv4Addr) -> String {
    let manner = cloud.lock().unwrap_or_else(PoisonError::into_inner).manner;
    match manner {
        Manner::Prompt => {}
        Manner::Slow => std::thread::sleep(SLOW),
        Manner::Broken => return "out of order".into(),
        Manner::Hung => {
            std::thread::sleep(HUNG);
            return "out of order".into();
        }
    }
    let mut cloud = cloud.lock().unwrap_or_else(PoisonError::into_inner);
    cloud.assigned.insert(vip, address);
    match apply(&cloud.assigned) {
        Ok(()) => "ok".into(),
        Err(error) => error.to_string(),
    }
}

/// Changes the network that we are in, and has everybody in it ask anew where an address is.
fn apply(assigned: &BTreeMap<Ipv4Addr, Ipv4Addr>) -> io::Result<()> {
    let rules = format!(
        "table bridge cloud\ndelete table bridge cloud\n{}",
        rules(assigned)
    );
    feed(&mut of_image(&["nft", "-f", "-"]), &rules)?;
    feed(&mut of_image(&["ip", "neighbour", "flush", "all"]), "").map(drop)
}

/// A program of the image: this host may lack it.
fn of_image(words: &[&str]) -> Command {
    let mut command = Command::new("chroot");
    command.args(Image::Bare.layers()).args(words);
    command
}

/// What clouds have: no multicast, and from each machine only its own address and those that it was given as source, in IP and
/// ARP. By name, so that they hold for a machine that is switched on later.
pub(super) fn rules(assigned: &BTreeMap<Ipv4Addr, Ipv4Addr>) -> String {
    let mut rules = String::from(
        "table bridge cloud {\n chain from_machines {\n  type filter hook prerouting priority -300; policy accept;\n",
    );
    for number in 1..=MOST {
        let (cable, own) = (
            cable(&format!("m{number}")),
            Ipv4Addr::new(10, 78, 0, 10 + number),
        );
        let given = assigned.iter().filter(|(_, holder)| **holder == own);
        let given = given.fold(own.to_string(), |given, (vip, _)| format!("{given}, {vip}"));
        for what in ["arp saddr ip", "ip saddr"] {
            let _ = writeln!(
                rules,
                "  iifname {cable} {what} != {{ {given} }} counter drop"
            );
        }
    }
    rules.push_str("  iifname \"vb-*\" meta pkttype multicast counter drop\n }\n}\n");
    rules
}
