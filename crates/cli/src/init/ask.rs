//! Questions to the operator, on a terminal.

use super::draft::{Mistake, Wishes, machine_mistakes, vip_mistakes};
use crate::answer;
use anyhow::bail;

/// Asks for what the command line and the directory do not say.
pub(super) fn complete(wishes: &mut Wishes) -> anyhow::Result<()> {
    if wishes.run.is_none() && wishes.procfile.web.is_none() {
        let question = "Which command starts the site? It must listen on $HOST:$PORT";
        let run = ask(question, |answer| {
            if answer.is_empty() {
                return Err(vec![
                    "write a command, such as bin/server --port $PORT".into(),
                ]);
            }
            Ok(answer.to_owned())
        })?;
        wishes.run = Some(run);
    }
    if wishes.machines.is_none() {
        let question =
            "On which machines, as ssh takes their names? (none: in a lab on this computer)";
        let machines = ask(question, |answer| {
            let names = words(answer);
            said(machine_mistakes(&names)).map(|()| names)
        })?;
        wishes.machines = (!machines.is_empty()).then_some(machines);
    }
    if wishes.machines.is_some() && wishes.vips.is_empty() {
        let question =
            "At which virtual addresses, such as 203.0.113.100/24? (none: at the balancers' own)";
        let machines = wishes.machines.clone();
        wishes.vips = ask(question, |answer| {
            let vips = words(answer);
            said(vip_mistakes(machines.as_deref(), &vips)).map(|()| vips)
        })?;
    }
    Ok(())
}

/// Asks until the answer can be used.
fn ask<T>(question: &str, read: impl Fn(&str) -> Result<T, Vec<String>>) -> anyhow::Result<T> {
    loop {
        let Some(answer) = answer::to(question)? else {
            bail!("there was no answer; nothing was written");
        };
        match read(&answer) {
            Ok(answer) => return Ok(answer),
            Err(mistakes) => mistakes.iter().for_each(|why| eprint_line!("  {why}")),
        }
    }
}

fn said(mistakes: Vec<Mistake>) -> Result<(), Vec<String>> {
    if mistakes.is_empty() {
        return Ok(());
    }
    Err(mistakes.iter().map(ToString::to_string).collect())
}

/// The names in an answer, between commas, spaces or both.
fn words(answer: &str) -> Vec<String> {
    let words = answer.split(|c: char| c == ',' || c.is_whitespace());
    let words = words.filter(|word| !word.is_empty());
    words.map(Into::into).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_between_commas_or_spaces() {
        assert_eq!(words("lb-1, lb-2  web-1,"), ["lb-1", "lb-2", "web-1"]);
        assert!(words(" , ").is_empty());
    }
}
