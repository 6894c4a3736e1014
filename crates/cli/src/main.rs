//! `gaiola`: one binary, one file, one command.

#![deny(clippy::print_stdout, clippy::print_stderr)]

#[macro_use]
mod output;

mod answer;
mod args;
mod candidates;
mod change;
mod completion;
mod connect;
mod ctl;
mod deploy;
mod doctor;
mod down;
mod drill;
mod exec;
mod file;
mod init;
mod install;
mod logs;
mod machine;
mod machines;
mod maintenance;
mod man;
mod open;
mod operate;
mod operator;
mod pending;
mod processes;
mod purge;
mod relay;
mod releases;
mod replace;
mod roll;
mod runtime;
mod secret;
mod up;

use args::{Args, Command};
use clap::Parser as _;
use gaiola_os::stderr;
use output::Exit;
use std::process::ExitCode;
use std::time::Duration;

/// How long the last lines may take to be written to standard error.
const LAST_LINES: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    completion::answer();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage.code().into()
            } else {
                Exit::Ok.code().into()
            };
        }
    };
    stderr::take_panics();
    let json = args.global.json;
    let exit = run(args).unwrap_or_else(|error| report_error(&error, json));
    let exit = output::settle(exit);
    stderr::flush(LAST_LINES);
    exit.code().into()
}

fn report_error(error: &anyhow::Error, json: bool) -> Exit {
    if let Some(invalid) = error.downcast_ref::<file::Invalid>() {
        invalid.print(json);
        return Exit::FileInvalid;
    }
    eprint_line!("gaiola: {error:#}");
    Exit::Failed
}

fn run(args: Args) -> anyhow::Result<Exit> {
    let global = args.global;
    match args.command {
        Command::Init(init) => init::init(&global, &init),
        Command::Check(of) => operate::check(&global, &of),
        Command::Plan(of) => operate::plan(&global, &of),
        Command::Up(up) => up::up(&global, &up),
        Command::Down(down) => down::down(&global, &down),
        Command::Status(of) => operate::status(&global, &of),
        Command::Open(open) => open::open(&global, &open),
        Command::Events(events) => operate::events(&global, &events),
        Command::Scale(scale) => operate::scale(&global, scale),
        Command::Replace(replace) => replace::replace(&global, &replace),
        Command::Drain(drain) => operate::drain(&global, &drain),
        Command::Undrain(drain) => operate::undrain(&global, &drain),
        Command::Restart(restart) => operate::restart(&global, restart),
        Command::Deploy(of) => releases::deploy(&global, &of),
        Command::Rollback(rollback) => releases::roll_back(&global, &rollback),
        Command::Releases(of) => releases::list(&global, &of),
        Command::Maintenance(command) => maintenance::maintenance(&global, &command),
        Command::Secret(command) => secret::secret(&global, &command),
        Command::Power(power) => operate::power(&global, &power),
        Command::Roll(roll) => roll::roll(&global, &roll),
        Command::Upgrade(of) => roll::upgrade(&global, &of),
        Command::Logs(logs) => logs::logs(&global, &logs),
        Command::Exec(exec) => exec::exec(&global, &exec),
        Command::Run(run) => exec::run(&global, &run),
        Command::Drill(drill) => drill::drill(&global, &drill),
        Command::Doctor(of) => doctor::doctor(&global, &of),
        Command::Connect(connect) => relay::connect(&connect),
        Command::Completion(completion) => completion::completion(completion.shell),
        Command::Man => man::man(),
        Command::Lab(lab) => processes::lab(lab),
        Command::Machine(machine) => machine::machine(&machine),
        Command::Visit(visit) => processes::visit(&visit),
        Command::OneOff(one_off) => processes::one_off(&one_off),
        Command::Pid1(pid1) => processes::pid1(&pid1),
        Command::Agent(agent) => processes::agent(&agent),
        Command::Keeper(keeper) => processes::keeper(&keeper),
        Command::Proxy(args::Proxy {
            command: Some(args::ProxyCommand::Ctl(ctl)),
            ..
        }) => ctl::ctl(&global, &ctl),
        Command::Proxy(proxy) => processes::proxy(&global, proxy),
    }
}
